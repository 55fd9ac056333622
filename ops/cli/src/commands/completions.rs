//! `strandline completions`.

use crate::cli::Cli;
use crate::exit::Failure;
use crate::output::Output;
use clap::CommandFactory;
use clap_complete::Shell;
use serde_json::json;

/// Print the completions of a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
    strandline completions bash > /etc/bash_completion.d/strandline
    strandline completions zsh > ~/.zfunc/_strandline
    strandline completions fish > ~/.config/fish/completions/strandline.fish")]
pub struct CompletionsArgs {
    /// Which shell
    pub shell: Shell,
}

pub fn run(args: &CompletionsArgs, out: Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "strandline", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    out.show(&json!({ "shell": args.shell.to_string(), "script": script }), || script.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_completes_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::Elvish, Shell::PowerShell] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "strandline", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("add-partitions") && script.contains("form-cluster"), "{shell}");
        }
    }
}
