//! `strandline-sim`: runs simulated clusters by the seed, one or many, and shows what was found.

mod runner;

fn main() -> std::process::ExitCode {
    runner::main()
}
