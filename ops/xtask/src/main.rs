//! `cargo xtask check` checks everything and writes nothing; `cargo xtask fix` mends what can be mended;
//! `cargo xtask mutants` sees whether the simulation notices planted bugs.
//!
//! The first two are short lists of commands, run one behind another from the root of the workspace. `check` goes on
//! after a failure, so that one run shows everything that is wrong. `.ci/run` runs `check` too: people and CI
//! cannot disagree.

use std::process::{Command, ExitCode};
use strandline_xtask::{mutants, root};

/// A command and what it is for.
struct Step {
    what: &'static str,
    command: &'static [&'static str],
}

const CHECK: &[Step] = &[
    Step { what: "formatting", command: &["cargo", "fmt", "--all", "--check"] },
    Step {
        what: "lints",
        command: &["cargo", "clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"],
    },
    // Holds the test of the dependency directions (ops/xtask/tests) and that generated pages are up to date.
    Step {
        what: "tests, dependency directions, generated pages",
        command: &["cargo", "test", "--workspace"],
    },
];

/// The page that the table of configuration keys writes.
const CONFIGURATION_PAGE: &str = "ops/docs/configuration.md";
/// The page that the tables of metrics write.
const METRICS_PAGE: &str = "ops/docs/metrics.md";

const FIX: &[Step] = &[
    Step {
        what: "lints that mend themselves",
        command: &[
            "cargo",
            "clippy",
            "--workspace",
            "--all-targets",
            "--fix",
            "--allow-dirty",
            "--allow-staged",
        ],
    },
    Step { what: "formatting", command: &["cargo", "fmt", "--all"] },
];

const HELP: &str = "\
cargo xtask check    formatting, lints, tests, dependency directions, generated pages; writes nothing
cargo xtask fix      formatting, lints that mend themselves, generated pages
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["check"] => run(CHECK, &[]),
        ["fix"] => run(
            FIX,
            &[
                (CONFIGURATION_PAGE, || write_page(CONFIGURATION_PAGE, "list")),
                (METRICS_PAGE, || write_page(METRICS_PAGE, "metrics")),
            ],
        ),
        ["mutants", ref rest @ ..] => match mutants::Options::parse(rest) {
            Ok(options) => mutants::run(&options),
            Err(wrong) => {
                eprint!("{wrong}\n{}", mutants::HELP);
                ExitCode::from(2)
            }
        },
        ["help" | "--help" | "-h"] => {
            print!("{HELP}{}", mutants::HELP);
            ExitCode::SUCCESS
        }
        _ => {
            eprint!("{HELP}{}", mutants::HELP);
            ExitCode::from(2)
        }
    }
}

type Task = fn() -> Result<(), String>;

/// Runs all steps, then all tasks, and says at the end which failed.
fn run(steps: &[Step], tasks: &[(&str, Task)]) -> ExitCode {
    let mut failed = Vec::new();
    for step in steps {
        eprintln!("\n==> {} ({})", step.what, step.command.join(" "));
        if let Err(why) = succeed(&mut command(step.command)) {
            failed.push(format!("{}: {why}", step.what));
        }
    }
    for (what, task) in tasks {
        eprintln!("\n==> {what}");
        if let Err(why) = task() {
            failed.push(format!("{what}: {why}"));
        }
    }
    if failed.is_empty() {
        eprintln!("\nall good");
        return ExitCode::SUCCESS;
    }
    eprintln!("\nfailed:\n  {}", failed.join("\n  "));
    ExitCode::FAILURE
}

/// In the root of the workspace, whichever directory this was started from.
fn command(words: &[&str]) -> Command {
    let (program, arguments) = words.split_first().expect("a program");
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root());
    command
}

fn succeed(command: &mut Command) -> Result<(), String> {
    match command.status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(status.to_string()),
        Err(error) => Err(format!("cannot start {:?}: {error}", command.get_program())),
    }
}

#[allow(clippy::disallowed_methods, reason = "a development tool, no part of a node")]
fn write_page(page: &str, listed_by: &str) -> Result<(), String> {
    let listing =
        ["cargo", "run", "--quiet", "--package", "strandline-cli", "--", "config", listed_by, "--markdown"];
    let output = command(&listing).output().map_err(|e| e.to_string())?;
    if !output.status.success() {
        return Err(format!("{}\n{}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    std::fs::write(root().join(page), output.stdout).map_err(|e| e.to_string())
}
