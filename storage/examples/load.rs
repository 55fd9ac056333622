//! What appending costs: a store on the real disk, followers' batches to some logs, a bounded number of bytes on
//! their way to the journal.
//!
//! `cargo run --release -p strandline-storage --example load -- DIRECTORY LOGS BATCH_KIB PENDING_KIB SECONDS`
//!
//! Prints bytes a second and the process's CPU time by GB of batches. DIRECTORY must not exist; it is removed.
#![allow(clippy::disallowed_methods)] // It measures time.

use bytes::Bytes;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use strandline_record::{
    BatchBuilder, BatchHeader, BrokerId, Compression, LeaderEpoch, Offset, PartitionId, TopicId,
    TopicPartition, write_base_offset, write_leader_epoch,
};
use strandline_storage::disk::RealDisk;
use strandline_storage::worker::ThreadHost;
use strandline_storage::{LogConfig, Store, StoreConfig};
use uuid::Uuid;

fn cpu_seconds() -> f64 {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the call fills what it is given.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn template(bytes: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    let value: Vec<u8> = (0..1000u32).map(|n| (n * 31 % 251) as u8).collect();
    for _ in 0..bytes.div_ceil(1024).max(1) {
        builder.append(1_700_000_000_000, None, Some(&value), &[]);
    }
    let mut batch = builder.build().to_vec();
    write_leader_epoch(&mut batch, LeaderEpoch(1));
    batch
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, dir, logs, batch_kib, pending_kib, seconds] = &args[..] else {
        panic!("usage: load DIRECTORY LOGS BATCH_KIB PENDING_KIB SECONDS");
    };
    let number = |text: &String| text.parse::<usize>().expect("a number");
    let (logs, pending_max, seconds) = (number(logs), number(pending_kib) << 10, number(seconds) as f64);
    let dir = PathBuf::from(dir);
    assert!(!dir.exists(), "the directory is a new one");

    let host = ThreadHost::new(Arc::new(|worker, error| panic!("{worker}: {error}")));
    let config = StoreConfig::new(BrokerId(1), Uuid::from_u128(1));
    let opened = Store::open(Arc::new(RealDisk::new()), &dir, config, &host, 0);
    let (store, _) = opened.expect("it opens");
    let flushed = Arc::new((Mutex::new(()), Condvar::new()));
    let open = |n: usize| {
        let tp = TopicPartition { topic: TopicId(Uuid::from_u128(2)), partition: PartitionId(n as i32) };
        let log = store.open_log(tp, &LogConfig::default()).expect("it opens");
        let flushed = flushed.clone();
        log.set_flush_listener(Arc::new(move |_| flushed.1.notify_one()));
        (log, Offset::ZERO)
    };
    let mut logs: Vec<_> = (0..logs).map(open).collect();

    let batch = template(number(batch_kib) << 10);
    let records = BatchHeader::parse(&batch).expect("a batch").next_offset().get();
    let (start, cpu_before) = (Instant::now(), cpu_seconds());
    let mut appended = 0usize;
    while start.elapsed().as_secs_f64() < seconds {
        for (log, end) in &mut logs {
            let mut bytes = batch.clone();
            write_base_offset(&mut bytes, *end);
            log.append_as_follower(&Bytes::from(bytes), 0).expect("it appends");
            *end = end.plus(records);
            appended += batch.len();
            let mut waiting = flushed.0.lock().expect("nobody panics");
            while store.journal_pending_bytes() > pending_max {
                waiting =
                    flushed.1.wait_timeout(waiting, Duration::from_millis(50)).expect("nobody panics").0;
            }
        }
    }
    let (elapsed, cpu) = (start.elapsed().as_secs_f64(), cpu_seconds() - cpu_before);
    println!("{:.0} MB/s, {:.3} CPU s/GB", appended as f64 / elapsed / 1e6, cpu / (appended as f64 / 1e9));
    drop((logs, host, store));
    std::fs::remove_dir_all(&dir).expect("it was just written");
}
