//! How long writes stall when the process that leads their partitions is killed with SIGKILL: from the kill to
//! the first acknowledged write (`acks=all`, `flush=ack`) on a partition that it led.
//!
//! Needs a running `strandline dev`, which starts the node again. Each round kills the node that leads most
//! partitions of the topic (300 partitions over three nodes, so always 100 or more), while one writer for each of
//! a sample of them keeps one small record in flight; then it waits until every replica is in sync again.
#![allow(clippy::disallowed_methods, reason = "a benchmark: the clock is what it measures")]

use clap::Parser;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use strandline_bench::procs;
use strandline_client::{Admin, Client, NewTopic, Record};

#[derive(Parser)]
#[command(about = "Kills leaders of `strandline dev` and measures how long writes stall")]
struct Args {
    #[arg(long, default_value = "127.0.0.1:7070,127.0.0.1:7071,127.0.0.1:7072")]
    bootstrap: String,
    /// Data directory of `strandline dev`; the pids are there.
    #[arg(long, default_value = "strandline-data")]
    data_dir: PathBuf,
    #[arg(long, default_value_t = 20)]
    kills: usize,
    #[arg(long, default_value_t = 300)]
    partitions: i32,
    /// Partitions of the victim that are written to.
    #[arg(long, default_value_t = 20)]
    writers: usize,
    #[arg(long)]
    json: bool,
}

const TOPIC: &str = "failover";
const ROUND_LIMIT: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let client = Client::builder().bootstrap(args.bootstrap.clone()).build()?;
    let admin = client.admin();
    if admin.describe_topic(TOPIC).await.is_err() {
        let topic = NewTopic::new(TOPIC).partitions(args.partitions).replication_factor(3);
        admin.create_topic(topic).await?;
    }
    let (mut first, mut all) = (Vec::new(), Vec::new());
    for round in 1..=args.kills {
        wait_in_sync(&admin).await?;
        let (victim, affected) = victim(&admin).await?;
        let (_, pid) = procs::dev_pids(&args.data_dir)
            .into_iter()
            .find(|(node, _)| *node == victim)
            .ok_or("no pid file: is this the data directory of a running `strandline dev`?")?;
        let count = affected.len();
        let mut stalls = kill_and_write(&client, pid, &affected[..count.min(args.writers)]).await?;
        stalls.sort_unstable();
        eprintln!(
            "kill {round:>2}: node {victim} led {count} partitions; first write after {:?}, last of {} after {:?}",
            stalls[0],
            stalls.len(),
            stalls[stalls.len() - 1]
        );
        first.push(stalls[0]);
        all.extend(stalls);
    }
    report(&args, first, all);
    Ok(())
}

/// The node that leads most partitions, and which.
async fn victim(admin: &Admin) -> Result<(u64, Vec<i32>), Box<dyn std::error::Error>> {
    let topic = admin.describe_topic(TOPIC).await?;
    let mut led: std::collections::BTreeMap<u64, Vec<i32>> = Default::default();
    for partition in &topic.partitions {
        if let Some(leader) = partition.leader {
            led.entry(leader).or_default().push(partition.partition);
        }
    }
    Ok(led.into_iter().max_by_key(|(_, partitions)| partitions.len()).ok_or("no leaders")?)
}

/// Time from the kill to the first acknowledged write of each partition.
async fn kill_and_write(
    client: &Client,
    pid: u32,
    partitions: &[i32],
) -> Result<Vec<Duration>, Box<dyn std::error::Error>> {
    let killed_at = Arc::new(std::sync::OnceLock::<Instant>::new());
    let stop = Arc::new(AtomicBool::new(false));
    let producer = Arc::new(client.producer().linger(Duration::ZERO).build()?);
    let writers: Vec<_> = partitions
        .iter()
        .map(|partition| {
            let (producer, killed_at, stop, partition) =
                (producer.clone(), killed_at.clone(), stop.clone(), *partition);
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let sent = Instant::now();
                    let record =
                        Record::to(TOPIC).partition(partition).value("a record that must not be lost");
                    let acknowledged = producer.send_and_wait(record).await.is_ok();
                    // Sent after the kill, or before it and answered after: either way a write that the kill met.
                    if let Some(at) = killed_at.get()
                        && acknowledged
                        && (sent >= *at || Instant::now() > *at + Duration::from_millis(5))
                    {
                        return Some(at.elapsed());
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                None
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(500)).await;
    // SAFETY: kill has no memory effects; the pid is the node's, from the file that `dev` wrote.
    unsafe { libc::kill(pid as i32, libc::SIGKILL) };
    let _ = killed_at.set(Instant::now());
    let mut stalls = Vec::new();
    for writer in writers {
        let stall = tokio::time::timeout(ROUND_LIMIT, writer)
            .await
            .map_err(|_| "writes did not resume in a minute")??;
        stalls.extend(stall);
    }
    stop.store(true, Ordering::Relaxed);
    if stalls.is_empty() {
        return Err("no write was acknowledged after the kill".into());
    }
    Ok(stalls)
}

async fn wait_in_sync(admin: &Admin) -> Result<(), Box<dyn std::error::Error>> {
    let until = Instant::now() + ROUND_LIMIT;
    loop {
        if let Ok(status) = admin.cluster_status().await
            && status.under_replicated == 0
            && status.leaderless == 0
            && status.brokers.iter().filter(|broker| !broker.fenced).count() >= 3
        {
            return Ok(());
        }
        if Instant::now() > until {
            return Err("the replicas did not get in sync within a minute".into());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn report(args: &Args, mut first: Vec<Duration>, mut all: Vec<Duration>) {
    first.sort_unstable();
    all.sort_unstable();
    let at = |sorted: &[Duration], q: f64| {
        sorted[((sorted.len() - 1) as f64 * q).round() as usize].as_millis() as u64
    };
    let line = |sorted: &[Duration]| (at(sorted, 0.5), at(sorted, 0.99), at(sorted, 1.0));
    let (f, a) = (line(&first), line(&all));
    if args.json {
        let json = serde_json::json!({
            "kills": args.kills,
            "first_write_ms": {"p50": f.0, "p99": f.1, "max": f.2},
            "each_partition_ms": {"p50": a.0, "p99": a.1, "max": a.2},
        });
        println!("{json}");
    } else {
        println!("{} kills of the node that led most of {} partitions", args.kills, args.partitions);
        println!("first acknowledged write   p50 {} ms  p99 {} ms  max {} ms", f.0, f.1, f.2);
        println!("each partition written to  p50 {} ms  p99 {} ms  max {} ms", a.0, a.1, a.2);
    }
}
