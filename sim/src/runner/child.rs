//! A run in a process of its own: task ids come from a counter of the whole process, so that a run is only the same
//! again in a fresh one; and what kills a run kills no other.

use super::outcome::Outcome;
use super::spec::RunSpec;
use super::verdict::Verdict;
use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Of what a child says on standard error the last lines are kept, each cut to this length.
const LAST_LINES: usize = 40;
const LINE_BYTES: u64 = 2_000;
/// A report is a few kilobytes; a child that says more than this is not ours.
const REPORT_BYTES: u64 = 16 << 20;

/// What a child does besides the run.
#[derive(Clone, Debug, Default)]
pub struct Extras {
    pub full_hash: bool,
    pub trace: Option<PathBuf>,
    pub timeline: Option<PathBuf>,
}

/// Carries out `spec` in a process of its own and waits for its end, at most until `deadline`.
pub fn carry_out(spec: &RunSpec, extras: &Extras, deadline: Duration) -> Outcome {
    let mut args: Vec<OsString> = vec!["run".into(), "--json".into()];
    args.extend(spec.args().into_iter().map(OsString::from));
    if extras.full_hash {
        args.push("--full-hash".into());
    }
    for (option, path) in [("--trace", &extras.trace), ("--timeline", &extras.timeline)] {
        if let Some(path) = path {
            args.extend([OsString::from(option), path.clone().into_os_string()]);
        }
    }
    let ended = std::env::current_exe().and_then(|program| {
        let mut command = Command::new(program);
        command.args(args);
        finish(&mut command, deadline)
    });
    match ended {
        Ok(ended) => judge(spec, ended, deadline),
        Err(error) => {
            let what = format!("the run's process could not be started: {error}");
            Outcome::without_report(spec.clone(), Verdict::Crash, what, Vec::new())
        }
    }
}

/// How a process ended.
#[derive(Debug)]
struct Ended {
    stdout: Vec<u8>,
    /// The last lines of standard error.
    last_lines: Vec<String>,
    /// `exit status: 101`, `signal: 6 (SIGABRT) (core dumped)`
    status: String,
    in_time: bool,
}

fn judge(spec: &RunSpec, ended: Ended, deadline: Duration) -> Outcome {
    if !ended.in_time {
        let what = format!("still running after {deadline:?} of the wall clock; killed");
        return Outcome::without_report(spec.clone(), Verdict::Deadline, what, ended.last_lines);
    }
    match serde_json::from_slice::<Outcome>(&ended.stdout) {
        Ok(outcome) if outcome.spec == *spec => outcome,
        _ => {
            let what = format!("the run's process ended without a report ({})", ended.status);
            Outcome::without_report(spec.clone(), Verdict::Crash, what, ended.last_lines)
        }
    }
}

/// Runs `command` to its end, or kills it at the deadline.
fn finish(command: &mut Command, deadline: Duration) -> io::Result<Ended> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child: Child = command.spawn()?;
    let stdout = child.stdout.take().expect("it is piped");
    let stderr = child.stderr.take().expect("it is piped");
    let (over, is_over) = mpsc::channel();
    std::thread::scope(|scope| {
        let report = scope.spawn(move || {
            let mut bytes = Vec::new();
            // What cannot be read is no report.
            let _ = stdout.take(REPORT_BYTES).read_to_end(&mut bytes);
            // Standard output ends with the process.
            let _ = over.send(());
            bytes
        });
        let last_lines = scope.spawn(move || last_lines(stderr));
        let in_time = is_over.recv_timeout(deadline).is_ok();
        if !in_time {
            child.kill()?;
        }
        let status = child.wait()?;
        Ok(Ended {
            stdout: report.join().expect("it does not panic"),
            last_lines: last_lines.join().expect("it does not panic"),
            status: status.to_string(),
            in_time,
        })
    })
}

fn last_lines(from: impl Read) -> Vec<String> {
    let mut from = BufReader::new(from);
    let mut lines = VecDeque::new();
    let mut line = Vec::new();
    while from.by_ref().take(LINE_BYTES).read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        if lines.len() == LAST_LINES {
            lines.pop_front();
        }
        lines.push_back(String::from_utf8_lossy(&line).trim_end().to_owned());
        line.clear();
    }
    lines.into()
}

#[cfg(test)]
mod tests {
    use super::super::outcome::samples;
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn shell(script: &str, deadline: Duration) -> Outcome {
        let ended = finish(Command::new("sh").args(["-c", script]), deadline).unwrap();
        judge(&samples::spec(3), ended, deadline)
    }

    #[test]
    fn a_report_is_taken_as_it_is() {
        let expected = samples::outcome(3, samples::safety());
        let json = serde_json::to_string(&expected).unwrap().replace('\'', "");
        assert_eq!(shell(&format!("echo noise >&2; echo '{json}'; exit 1"), LONG), expected);
    }

    #[test]
    fn a_child_killed_by_a_signal_is_a_crash_with_its_seed_and_last_output() {
        let outcome = shell("echo one >&2; echo two >&2; kill -9 $$", LONG);
        assert_eq!((outcome.verdict, outcome.spec.seed), (Verdict::Crash, 3));
        assert!(outcome.what.unwrap().contains("signal: 9"));
        assert_eq!(outcome.story, ["one", "two"]);
    }

    #[test]
    fn a_child_that_reports_another_run_or_nonsense_is_a_crash() {
        let other = serde_json::to_string(&samples::outcome(4, None)).unwrap();
        assert_eq!(shell(&format!("echo '{other}'"), LONG).verdict, Verdict::Crash);
        assert_eq!(shell("echo fine", LONG).verdict, Verdict::Crash);
        assert_eq!(shell("exit 0", LONG).verdict, Verdict::Crash);
    }

    #[test]
    fn a_child_over_its_deadline_is_killed() {
        let outcome = shell("echo begun >&2; exec sleep 1000", Duration::from_millis(300));
        assert_eq!(outcome.verdict, Verdict::Deadline);
    }

    #[test]
    fn only_the_last_lines_are_kept_and_none_is_too_long() {
        let text = (0..100).map(|n| format!("{n}\n")).collect::<String>();
        let lines = last_lines(text.as_bytes());
        assert_eq!((lines.len(), lines[0].as_str(), lines[39].as_str()), (LAST_LINES, "60", "99"));
        assert_eq!(
            last_lines([b'x'; 3_000].as_slice()).iter().map(String::len).collect::<Vec<_>>(),
            [2_000, 1_000]
        );
    }
}
