use std::time::Duration;
use strandline_sim::run::{Limits, RunOptions, run};
use strandline_sim::trace::{Detail, Trace};

#[allow(clippy::disallowed_methods)]
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let seed: u64 = args[1].parse().unwrap();
    let secs: u64 = args.get(2).map_or(60, |s| s.parse().unwrap());
    let file = args.get(3);
    let mut trace = Trace::new(if file.is_some() { Detail::Everything } else { Detail::Notes });
    if let Some(file) = file {
        trace = trace.to_file(file.as_ref()).unwrap();
        tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .with_env_filter(std::env::var("F").unwrap_or("info,openraft=off,turmoil=warn".into()))
            .with_writer(strandline_sim::trace::LogLines(trace.clone()))
            .init();
    }
    let started = std::time::Instant::now();
    let options = RunOptions {
        seed,
        scenario: None,
        faulty_for: Duration::from_secs(secs),
        trace: trace.clone(),
        limits: Limits::default(),
    };
    let report = run(options, &mut ());
    if report.failure.is_some() {
        for line in trace.recent().iter().rev().take(60).rev() {
            println!("{}", line.chars().take(250).collect::<String>());
        }
    }
    let faults: Vec<String> =
        report.faults.iter().filter(|f| f.1 > 0).map(|(kind, count)| format!("{kind} {count}")).collect();
    println!(
        "seed {seed}: {:?} {} ms, {:?}, {}, {:?}, wall {:?}",
        report.failure.map(|f| f.to_string()),
        report.ended_us / 1000,
        report.work,
        faults.join(", "),
        report.trace,
        started.elapsed()
    );
    trace.finish().unwrap();
}
