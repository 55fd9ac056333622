//! `strandline demo`: payments at a chosen rate and three groups that read them, with figures while it runs. The
//! demonstration itself is the gateway's ([`strandline_gateway::demo`]), here in a process of its own.

use super::connect;
use crate::cli::Global;
use crate::exit::{Exit, Failure};
use crate::output::{Output, grouped, human_ms};
use crate::signals::{Signals, Stop};
use crate::table::table;
use indicatif::ProgressBar;
use std::time::Duration;
use strandline_gateway::demo::{DEFAULT_RATE, Demo, Ended, Group, Plan, Report, StartError, Work};
use tokio::time::{Instant, MissedTickBehavior};

const SECOND: Duration = Duration::from_secs(1);
/// Between two lines where nothing can be drawn over.
const LINE: Duration = Duration::from_secs(10);

/// Show what a cluster does: a stream of payments, and groups that read it
///
/// Writes payments to the topic demo.payments, and reads them in three groups: demo.orders keeps up, with members that come
/// and go; demo.notifications is slow now and then, falls behind and catches up; demo.analytics goes back and reads
/// again what it has read, and checks that it is the same. Kill a node meanwhile. Runs until Ctrl-C, or for as long
/// as --minutes says; the dashboard shows the same and has a button for it. A cluster has one demonstration at a time.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
    strandline demo
    strandline demo --rate 1000000 --minutes 5
    strandline demo --rate 10000 --no-groups --json | jq .written.achievedPerMinute")]
pub struct DemoArgs {
    /// Payments a minute, from 10000 to 1000000
    #[arg(long, default_value_t = DEFAULT_RATE, value_name = "N", value_parser = clap::value_parser!(u32).range(10_000..=1_000_000))]
    pub rate: u32,
    /// Stop after so many minutes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_080))]
    pub minutes: Option<u64>,
    /// Stop after so many seconds
    #[arg(long, value_name = "N", conflicts_with = "minutes", value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub seconds: Option<u64>,
    /// Only write; nobody reads
    #[arg(long)]
    pub no_groups: bool,
}

impl DemoArgs {
    fn limit(&self) -> Option<Duration> {
        let seconds = self.seconds.or_else(|| self.minutes.map(|minutes| minutes * 60))?;
        Some(Duration::from_secs(seconds))
    }
}

pub async fn run(args: DemoArgs, global: &Global, out: Output) -> Result<(), Failure> {
    let mut signals = Signals::listen().map_err(|error| Failure::new(Exit::Failure, error))?;
    let client = connect(global).await?;
    let plan = Plan {
        rate_per_minute: args.rate,
        limit: args.limit(),
        groups: !args.no_groups,
        by: format!("strandline demo, process {}", std::process::id()),
    };
    out.remark("preparing: topics, and this cluster's one place for a demonstration");
    let demo = tokio::select! {
        biased;
        _ = signals.next() => return Err(Failure::interrupted("interrupted before it began")),
        started = Demo::start(client, plan) => started.map_err(not_started)?,
    };
    out.remark("running; Ctrl-C stops it");
    let bar = out.progress(None);
    let watched = watch(&demo, &mut signals, out, &bar).await;
    bar.finish_and_clear();
    watched?;
    let report = demo.report();
    out.show(&report, || summary(&report))?;
    match report.ended {
        Some(Ended::LostItsPlace) => Err(Failure::new(
            Exit::Failure,
            "the cluster was not reached for too long, and the demonstration ended",
        )
        .hint("`strandline cluster status` shows which nodes live")),
        Some(Ended::Broken) => Err(Failure::new(Exit::Failure, "a part of the demonstration failed")),
        Some(Ended::Stopped | Ended::TimeIsUp) | None => Ok(()),
    }
}

fn not_started(error: StartError) -> Failure {
    match error {
        StartError::Cluster(error) => Failure::from(error).context("the demonstration cannot begin"),
        StartError::Rate(_) => Failure::usage(error),
        StartError::Elsewhere(_) => Failure::new(Exit::Refused, &error).hint(
            "stop that one first, on its dashboard or where it runs; one that was killed makes room after ten seconds",
        ),
    }
}

/// Shows figures until it has ended. The first signal stops it, the second one does not wait.
async fn watch(demo: &Demo, signals: &mut Signals, out: Output, bar: &ProgressBar) -> Result<(), Failure> {
    let mut seconds = tokio::time::interval(SECOND);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut line = Instant::now() + LINE;
    let mut stopping = false;
    loop {
        tokio::select! {
            biased;
            stop = signals.next() => {
                if std::mem::replace(&mut stopping, true) {
                    return Err(interrupted(stop));
                }
                demo.stop();
                bar.set_message("stopping");
            }
            () = demo.ended() => return Ok(()),
            now = seconds.tick() => {
                let report = demo.report();
                if out.json {
                    out.json_line(&report)?;
                } else if !stopping {
                    bar.set_message(picture(&report));
                    if bar.is_hidden() && now >= line {
                        line = now + LINE;
                        out.remark(&one_line(&report));
                    }
                }
            }
        }
    }
}

fn interrupted(stop: Stop) -> Failure {
    Failure::interrupted(format_args!(
        "stopped at once ({stop:?}); what was on its way may have been written"
    ))
}

/// All figures, for a terminal.
fn picture(report: &Report) -> String {
    let mut text = one_line(report);
    if let Some(error) = &report.written.last_error {
        text += &format!("\nlast error: {error}");
    }
    if !report.groups.is_empty() {
        text += &format!("\n\n{}", groups(report));
        for group in &report.groups {
            text += &format!("\n{:18}  {}", group.group, work(&group.work));
        }
    }
    text
}

fn one_line(report: &Report) -> String {
    let written = &report.written;
    let mut text = format!(
        "{} of {} payments a minute, p99 {}, {} acknowledged",
        grouped(written.achieved_per_minute),
        grouped(report.rate_per_minute.into()),
        written.latency_ms.map_or_else(|| "-".to_owned(), |[_, _, p99]| human_ms(p99)),
        grouped(written.acknowledged),
    );
    for (count, what) in [
        (written.behind, "behind"),
        (written.shed, "never sent: too far behind"),
        (written.failed, "failed"),
        (written.unknown, "of unknown outcome"),
    ] {
        if count > 0 {
            text += &format!(", {} {what}", grouped(count));
        }
    }
    text
}

fn groups(report: &Report) -> String {
    let row = |group: &Group| {
        [
            group.group.clone(),
            group.members.to_string(),
            group.lag.map_or_else(|| "-".to_owned(), |lag| lag.to_string()),
            group.per_second.to_string(),
            group.rebalances.to_string(),
            group.repeated.to_string(),
            group.errors.to_string(),
            group.phase.clone(),
        ]
    };
    let header = ["group", "members", "lag", "reads/s", "rebalances", "read again", "errors", "now"];
    table(header, report.groups.iter().map(row))
}

/// What a group made of the payments.
fn work(work: &Work) -> String {
    match work {
        Work::Orders { accounts, total_cents, most } => {
            let most = most.as_ref().map(|paid| format!("; {} paid most, {}", paid.name, euros(paid.cents)));
            let accounts = grouped((*accounts).into());
            format!("{accounts} accounts paid {}{}", euros(*total_cents), most.unwrap_or_default())
        }
        Work::Notifications { above_cents, sent, latest } => {
            let last = latest.first().map(|paid| format!("; the last: {} {}", paid.name, euros(paid.cents)));
            let sent = grouped(*sent);
            format!("{sent} payments of {} and more{}", euros(*above_cents), last.unwrap_or_default())
        }
        Work::Analytics { merchants, replays, partitions_verified, partitions_mismatched } => {
            let first = merchants.first().map(|merchant| {
                let (sum, median) = (euros(merchant.cents), euros(merchant.p50_cents));
                format!(
                    "{} took {sum} in {} payments, median {median}",
                    merchant.name,
                    grouped(merchant.count)
                )
            });
            let wrong = match partitions_mismatched {
                0 => String::new(),
                wrong => format!(", in {wrong} SOMETHING ELSE"),
            };
            format!(
                "{}; {replays} replays found the same in {partitions_verified} partitions{wrong}",
                first.unwrap_or_else(|| "nothing so far".to_owned())
            )
        }
    }
}

/// Cents as euros.
fn euros(cents: u64) -> String {
    format!("€{}.{:02}", grouped(cents / 100), cents % 100)
}

fn summary(report: &Report) -> String {
    let why = match report.ended {
        Some(Ended::TimeIsUp) => "its time was up",
        Some(Ended::LostItsPlace) => "the cluster gave its place away",
        Some(Ended::Broken) => "a part of it failed",
        Some(Ended::Stopped) | None => "stopped",
    };
    let written = &report.written;
    let mut text = format!("The demonstration has ended: {why}.\n");
    let mut fact = |name: &str, value: String| text += &format!("{name:16}  {value}\n");
    fact("acknowledged", grouped(written.acknowledged));
    fact("failed", grouped(written.failed));
    fact("unknown outcome", grouped(written.unknown));
    fact("never sent", grouped(written.behind + written.shed));
    for group in &report.groups {
        let (read, again) = (grouped(group.read), grouped(group.repeated));
        let (rebalances, errors) = (group.rebalances, group.errors);
        let lag = group.lag.map_or_else(|| "unknown".to_owned(), grouped);
        let told = work(&group.work);
        fact(
            &group.group,
            format!(
                "{read} read ({again} of them again), lag {lag}, {rebalances} rebalances, {errors} errors; {told}"
            ),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use strandline_gateway::demo::{Merchant, Paid, State, Written};

    fn report() -> Report {
        let group = |group: &str, work| Group {
            group: group.into(),
            phase: "keeps up".into(),
            members: 3,
            lag: Some(1_200),
            per_second: 1_666,
            read: 50_000,
            repeated: 7,
            unreadable: 0,
            rebalances: 2,
            errors: 0,
            last_error: None,
            work,
        };
        let merchant = Merchant {
            name: "Sky Travel".into(),
            count: 9,
            cents: 123_456,
            p50_cents: 900,
            p99_cents: 9_000,
        };
        Report {
            state: State::Running,
            by: "here".into(),
            ended: None,
            started_at: 0,
            ends_at: None,
            rate_per_minute: 100_000,
            written: Written {
                achieved_per_minute: 99_870,
                acknowledged: 1_234_567,
                behind: 12,
                latency_ms: Some([1.0, 2.0, 8.25]),
                ..Written::default()
            },
            groups: vec![
                group(
                    "demo.orders",
                    Work::Orders {
                        accounts: 9_321,
                        total_cents: 105,
                        most: Some(Paid { name: "acc-00001".into(), cents: 99 }),
                    },
                ),
                group(
                    "demo.analytics",
                    Work::Analytics {
                        merchants: vec![merchant],
                        replays: 2,
                        partitions_verified: 24,
                        partitions_mismatched: 1,
                    },
                ),
            ],
        }
    }

    #[test]
    fn figures_are_shown_and_what_went_wrong_only_if_it_did() {
        let text = picture(&report());
        assert!(
            text.starts_with(
                "99 870 of 100 000 payments a minute, p99 8.25 ms, 1 234 567 acknowledged, 12 behind\n\nGROUP"
            ),
            "{text}"
        );
        assert!(!text.contains("failed") && !text.contains("last error"), "{text}");
        let row = text.lines().find(|line| line.starts_with("demo.orders")).expect("a row");
        let cells: Vec<&str> = row.split_whitespace().collect();
        assert_eq!(cells, ["demo.orders", "3", "1200", "1666", "2", "7", "0", "keeps", "up"]);
        assert!(text.contains("9 321 accounts paid €1.05; acc-00001 paid most, €0.99"), "{text}");
        assert!(text.contains("found the same in 24 partitions, in 1 SOMETHING ELSE"), "{text}");
        let mut failing = report();
        failing.written.failed = 3;
        failing.written.last_error = Some("no leader".into());
        assert!(picture(&failing).contains("12 behind, 3 failed\nlast error: no leader\n"));
    }

    #[test]
    fn the_summary_says_why_it_ended_and_what_each_group_did() {
        let text = summary(&Report { ended: Some(Ended::TimeIsUp), ..report() });
        assert!(text.starts_with("The demonstration has ended: its time was up.\n"), "{text}");
        assert!(text.contains("50 000 read (7 of them again), lag 1 200, 2 rebalances, 0 errors"), "{text}");
    }
}
