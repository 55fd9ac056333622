//! Counts what became of the records, in the order in which they were sent, beside the sending.

use crate::exit::Failure;
use crate::output::{Output, grouped, human_bytes};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use strandline_client::{DeliveryHandle, Error};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Blocks whose results are outstanding. More are held back by the producer's own buffer.
const BLOCKS_OUTSTANDING: usize = 1024;

/// Numbers that grow while the command runs.
#[derive(Debug, Default)]
pub struct Counts {
    sent: AtomicU64,
    acknowledged: AtomicU64,
    bytes: AtomicU64,
    failed: AtomicU64,
    unknown: AtomicU64,
    over: AtomicBool,
    first_error: Mutex<Option<Failure>>,
}

impl Counts {
    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Relaxed)
    }

    /// Of keys and values that were acknowledged.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Certainly not in the topic.
    pub fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// Perhaps in the topic.
    pub fn unknown(&self) -> u64 {
        self.unknown.load(Relaxed)
    }

    pub fn first_error(&self) -> Option<Failure> {
        self.first_error.lock().expect("nobody panics while holding it").clone()
    }

    /// Why not everything will be written; the first reason counts.
    pub fn note(&self, failure: Failure) {
        self.first_error.lock().expect("nobody panics while holding it").get_or_insert(failure);
    }
}

/// The sending side's end.
pub struct Tally {
    counts: Arc<Counts>,
    keep_going: bool,
    results: mpsc::Sender<Vec<(DeliveryHandle, usize)>>,
}

impl Tally {
    /// Starts counting in a task of its own, which ends when every `Tally` is gone and all results are in.
    pub fn start(keep_going: bool) -> (Tally, Arc<Counts>, JoinHandle<()>) {
        let counts = Arc::new(Counts::default());
        let (results, inbox) = mpsc::channel(BLOCKS_OUTSTANDING);
        let counting = tokio::spawn(count(inbox, counts.clone(), keep_going));
        (Tally { counts: counts.clone(), keep_going, results }, counts, counting)
    }

    /// Takes records that are on their way, with the bytes of key and value of each.
    pub async fn sent(&self, records: &mut Vec<(DeliveryHandle, usize)>) {
        let room = self.results.reserve().await.expect("the counting task runs until the last tally is gone");
        self.counts.sent.fetch_add(records.len() as u64, Relaxed);
        room.send(std::mem::take(records));
    }

    /// A record that the producer did not take: it is not in the topic.
    pub fn refused(&self, error: Error) {
        self.counts.sent.fetch_add(1, Relaxed);
        self.counts.settle_failed(error, self.keep_going);
    }

    /// Enough has failed: nothing more is to be sent.
    pub fn is_over(&self) -> bool {
        self.counts.over.load(Relaxed)
    }
}

impl Counts {
    fn settle_failed(&self, error: Error, keep_going: bool) {
        let count = if error.may_have_happened() { &self.unknown } else { &self.failed };
        count.fetch_add(1, Relaxed);
        self.note(error.into());
        if !keep_going {
            self.over.store(true, Relaxed);
        }
    }
}

async fn count(
    mut inbox: mpsc::Receiver<Vec<(DeliveryHandle, usize)>>,
    counts: Arc<Counts>,
    keep_going: bool,
) {
    while let Some(records) = inbox.recv().await {
        // One look at a settled batch answers for all its records; the counters are shared with the other thread
        // and therefore touched once a block.
        let (mut acknowledged, mut bytes) = (0, 0);
        for (handle, size) in records {
            let result = match handle.try_result() {
                Some(result) => result,
                None => {
                    counts.acknowledged.fetch_add(std::mem::take(&mut acknowledged), Relaxed);
                    counts.bytes.fetch_add(std::mem::take(&mut bytes), Relaxed);
                    handle.await
                }
            };
            match result {
                Ok(_) => {
                    acknowledged += 1;
                    bytes += size as u64;
                }
                Err(error) => counts.settle_failed(error, keep_going),
            }
        }
        counts.acknowledged.fetch_add(acknowledged, Relaxed);
        counts.bytes.fetch_add(bytes, Relaxed);
    }
}

/// A line on the terminal that shows the counts grow.
pub struct Progress {
    bar: indicatif::ProgressBar,
    drawing: JoinHandle<()>,
}

pub fn show_progress(counts: &Arc<Counts>, out: Output, begun: Instant) -> Progress {
    let bar = out.progress(None);
    let (drawn, counts) = (bar.clone(), counts.clone());
    let drawing = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let seconds = begun.elapsed().as_secs_f64();
            drawn.set_message(format!(
                "{} records acknowledged, {}, {}/s",
                grouped(counts.acknowledged()),
                human_bytes(counts.bytes() as f64),
                human_bytes(counts.bytes() as f64 / seconds)
            ));
        }
    });
    Progress { bar, drawing }
}

impl Progress {
    pub fn finish(self) {
        self.drawing.abort();
        self.bar.finish_and_clear();
    }
}
