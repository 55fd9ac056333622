//! The processor in virtual time, with a store that fails as it is told.

use super::super::normalise::{Amount, Event, EventId};
use super::super::store::*;
use super::*;
use std::collections::BTreeSet;
use tokio::time::Instant;

/// Takes batches as a store does, and notes them.
#[derive(Default)]
struct Fake {
    /// Calls that fail from now on.
    failing: Mutex<u32>,
    /// Events that are never taken as processed.
    poison: BTreeSet<i64>,
    /// Nor in any other way.
    deadly: BTreeSet<i64>,
    /// What was taken: offset and status.
    taken: Mutex<Vec<(i64, Status)>>,
    next: Mutex<i64>,
    calls: Mutex<Vec<Duration>>,
    started: Option<Instant>,
}

fn down() -> StoreError {
    StoreError::Unavailable("down".into())
}

impl Fake {
    fn call(&self) -> Result<(), StoreError> {
        self.calls.lock().extend(self.started.map(|started| started.elapsed()));
        let mut failing = self.failing.lock();
        if *failing > 0 {
            *failing -= 1;
            return Err(down());
        }
        Ok(())
    }
}

#[async_trait]
impl Store for Fake {
    fn shared(&self) -> bool {
        false
    }
    async fn offsets(&self) -> Result<BTreeMap<Source, i64>, StoreError> {
        unreachable!()
    }
    async fn apply(&self, batches: Arc<[Batch]>) -> Result<(), StoreError> {
        self.call()?;
        for write in batches.iter().flat_map(|batch| &batch.writes) {
            let processed = write.verdict.status() == Status::Processed;
            if self.poison.contains(&write.offset) && processed || self.deadly.contains(&write.offset) {
                return Err(StoreError::Unavailable(format!("offset {} is refused", write.offset)));
            }
        }
        for batch in batches.iter() {
            let mut next = self.next.lock();
            if batch.from > *next {
                return Err(StoreError::Behind { of: batch.source, next: *next });
            }
            *next = batch.next;
            self.taken.lock().extend(batch.writes.iter().map(|write| (write.offset, write.verdict.status())));
        }
        Ok(())
    }
    async fn probe(&self) -> Result<(), StoreError> {
        self.call()
    }
    async fn get(&self, _: Vec<EventId>) -> Result<BTreeMap<EventId, StoredEvent>, StoreError> {
        unreachable!()
    }
    async fn list(&self, _: EventFilter) -> Result<Vec<StoredEvent>, StoreError> {
        unreachable!()
    }
    async fn aggregate(&self, _: AggregateQuery) -> Result<BTreeMap<GroupKey, Bucket>, StoreError> {
        unreachable!()
    }
    async fn totals(&self) -> Result<Totals, StoreError> {
        unreachable!()
    }
}

#[derive(Default)]
struct Letters {
    failing: Mutex<u32>,
    sent: Mutex<Vec<DeadLetter>>,
}

#[async_trait]
impl DeadLetters for Letters {
    async fn send(&self, letter: &DeadLetter) -> Result<(), String> {
        let mut failing = self.failing.lock();
        if *failing > 0 {
            *failing -= 1;
            return Err("no leader".into());
        }
        self.sent.lock().push(letter.clone());
        Ok(())
    }
}

const SOURCE: Source = Source { topic_id: [1; 16], partition: 4 };

fn work(count: i64) -> Work {
    let write = |offset| {
        let event = Event { client: "c".into(), metric: "m".into(), amount: Amount::zero(), time_ms: offset };
        Write {
            offset,
            id: event.id(),
            received_ms: 0,
            redriven: false,
            verdict: Verdict::Processed(event),
            original: None,
        }
    };
    let batch = Batch {
        source: SOURCE,
        topic: "ingest.events".into(),
        from: 0,
        next: count,
        writes: (0..count).map(write).collect(),
    };
    let extra = |offset| {
        ((SOURCE, offset), Extra { value: format!("value {offset}").into(), redrives: 0, fails: false })
    };
    Work { batches: vec![batch], extras: (0..count).map(extra).collect() }
}

async fn run(store: Fake, letters: Letters, work: Work) -> (Result<(), Behind>, Arc<Fake>, Arc<Letters>) {
    let (store, letters) = (Arc::new(Fake { started: Some(Instant::now()), ..store }), Arc::new(letters));
    let patience =
        Patience { attempts: 5, first: Duration::from_millis(100), longest: Duration::from_millis(1000) };
    let mut processor = Processor::new(store.clone(), letters.clone(), patience, Arc::default(), 7);
    let result = processor.write(work).await;
    (result, store, letters)
}

fn processed(offsets: std::ops::Range<i64>) -> Vec<(i64, Status)> {
    offsets.map(|offset| (offset, Status::Processed)).collect()
}

#[tokio::test(start_paused = true)]
async fn failures_that_pass_fail_no_event() {
    // Fewer than the attempts of one event.
    let (result, store, letters) =
        run(Fake { failing: Mutex::new(4), ..Fake::default() }, Letters::default(), work(1)).await;
    assert_eq!(result, Ok(()));
    assert_eq!(*store.taken.lock(), processed(0..1));
    assert_eq!(*letters.sent.lock(), []);
    // Delays double, each between half and the whole of it.
    let calls = store.calls.lock().clone();
    let delays: Vec<Duration> = calls.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(delays.len(), 4);
    for (delay, full) in delays.iter().zip([100, 200, 400, 800]) {
        let full = Duration::from_millis(full);
        assert!(*delay >= full / 2 && *delay <= full + Duration::from_millis(1), "{delays:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_fails_no_event_however_long_it_is() {
    let (result, store, letters) =
        run(Fake { failing: Mutex::new(500), ..Fake::default() }, Letters::default(), work(20)).await;
    assert_eq!(result, Ok(()));
    assert_eq!(*store.taken.lock(), processed(0..20));
    assert_eq!(*letters.sent.lock(), []);
    assert!(store.calls.lock().last().is_some_and(|last| *last > Duration::from_secs(100)));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_alone_is_refused_is_dead_lettered_once_and_the_others_are_taken_in_order() {
    let store = Fake { poison: BTreeSet::from([3, 11]), ..Fake::default() };
    let letters = Letters { failing: Mutex::new(3), ..Letters::default() };
    let (result, store, letters) = run(store, letters, work(20)).await;
    assert_eq!(result, Ok(()));
    let expected: Vec<_> = (0..20)
        .map(|offset| (offset, if [3, 11].contains(&offset) { Status::Failed } else { Status::Processed }))
        .collect();
    assert_eq!(*store.taken.lock(), expected);
    assert_eq!(*store.next.lock(), 20);
    let sent = letters.sent.lock();
    assert_eq!(sent.len(), 2);
    assert_eq!((sent[0].origin.as_str(), sent[0].attempts), ("ingest.events-4@3", 5));
    assert_eq!((&sent[0].value[..], sent[0].key()), (&b"value 3"[..], sent[0].id.to_string()));
    assert!(sent[0].error.contains("offset 3 is refused"), "{}", sent[0].error);
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_very_mark_is_refused_is_passed_over() {
    let store = Fake { deadly: BTreeSet::from([1]), ..Fake::default() };
    let (result, store, letters) = run(store, Letters::default(), work(3)).await;
    assert_eq!(result, Ok(()));
    assert_eq!(*store.taken.lock(), [(0, Status::Processed), (2, Status::Processed)]);
    assert_eq!((letters.sent.lock().len(), *store.next.lock()), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_was_asked_for_happens_to_that_event_only() {
    let mut work = work(4);
    work.extras.get_mut(&(SOURCE, 2)).unwrap().fails = true;
    let (result, store, letters) = run(Fake::default(), Letters::default(), work).await;
    assert_eq!(result, Ok(()));
    let (p, f) = (Status::Processed, Status::Failed);
    assert_eq!(*store.taken.lock(), [(0, p), (1, p), (2, f), (3, p)]);
    assert!(letters.sent.lock()[0].error.contains("simulateFailure"));
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_told_and_nothing_after_it_is_written() {
    let mut work = work(4);
    work.batches[0].from = 1;
    work.batches[0].writes.remove(0);
    let (result, store, _) = run(Fake::default(), Letters::default(), work).await;
    assert_eq!(result, Err(Behind { of: SOURCE, next: 0 }));
    assert_eq!(*store.taken.lock(), []);
}
