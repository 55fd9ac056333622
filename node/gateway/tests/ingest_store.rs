//! What every store of the ingest pipeline has to do, run on SQLite and on a real PostgreSQL.
#![allow(clippy::disallowed_methods, reason = "a test writes files")]

mod postgres;

use futures::future::BoxFuture;
use postgres::Postgres;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use strandline_gateway::ingest::normalise::{Amount, Event, EventId};
use strandline_gateway::ingest::store::*;

const DEADLINE: Duration = Duration::from_secs(20);

/// Where a case opens its store, as often as it likes.
enum Place {
    File(PathBuf),
    Url(String),
}

impl Place {
    async fn open(&self) -> Arc<dyn Store> {
        match self {
            Place::File(path) => Arc::new(SqliteStore::open(path, DEADLINE).unwrap()),
            Place::Url(url) => Arc::new(PostgresStore::open(url, DEADLINE).await.unwrap()),
        }
    }
}

type Case = (&'static str, fn(&Place) -> BoxFuture<'_, ()>);

const CASES: &[Case] = &[
    ("a batch moves its offset and counts once", |place| Box::pin(counts_once(place))),
    ("a batch that leaves a gap changes nothing", |place| Box::pin(gap(place))),
    ("an event counts once whichever partition it is in", |place| Box::pin(one_event(place))),
    ("rejected and failed events are kept and do not count", |place| Box::pin(refused(place))),
    ("a redriven event counts once", |place| Box::pin(redriven(place))),
    ("sums are exact and texts are kept as they are", |place| Box::pin(exact(place))),
    ("every question agrees with a model", |place| Box::pin(model(place))),
    ("two writers of one source count once", |place| Box::pin(two_writers(place))),
];

#[tokio::test]
async fn sqlite_keeps_the_contract() {
    for (name, case) in CASES {
        println!("{name}");
        let directory = tempfile::tempdir().unwrap();
        case(&Place::File(directory.path().join("ingest.sqlite"))).await;
    }
}

#[test]
fn postgresql_keeps_the_contract() {
    let server = Postgres::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        for (at, (name, case)) in CASES.iter().enumerate() {
            println!("{name}");
            case(&Place::Url(server.database(&format!("case{at}")).await)).await;
        }
        println!("connections that the server ends are made again");
        let place = Place::Url(server.database("ended").await);
        let store = place.open().await;
        store.apply(batch(0, 0, 1, vec![write(0, event("a", "m", "1", 0))])).await.unwrap();
        store.totals().await.unwrap();
        server.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'ended'").await;
        let next = batch(0, 1, 2, vec![write(1, event("a", "m", "2", 0))]);
        // The first call of each connection may be the one that notices.
        let mut tries = 0;
        while store.apply(next.clone()).await.is_err() {
            tries += 1;
            assert!(tries < 2);
        }
        let _ = store.totals().await;
        assert_eq!(store.totals().await.unwrap().processed, 2);
    });
}

#[test]
fn sqlite_refuses_files_that_are_not_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("other");
    std::fs::write(&path, "this is no database, but long enough to be looked at as if it were one").unwrap();
    let error = SqliteStore::open(&path, DEADLINE).unwrap_err().to_string();
    assert!(error.contains("delete it"), "{error}");
}

fn event(client: &str, metric: &str, amount: &str, time_ms: i64) -> Event {
    Event {
        client: client.into(),
        metric: metric.into(),
        amount: Amount::from_event(amount).unwrap(),
        time_ms,
    }
}

fn write(offset: i64, event: Event) -> Write {
    let id = event.id();
    Write {
        offset,
        id,
        received_ms: 1000 + offset,
        redriven: false,
        verdict: Verdict::Processed(event),
        original: None,
    }
}

fn failed(offset: i64, event: Event) -> Write {
    let verdict = Verdict::Failed { event: event.clone(), error: "disk full".into(), attempts: 5 };
    Write { verdict, original: Some("{}".into()), ..write(offset, event) }
}

fn source(partition: i32) -> Source {
    Source { topic_id: [7; 16], partition }
}

fn batch(partition: i32, from: i64, next: i64, writes: Vec<Write>) -> Arc<[Batch]> {
    Arc::new([Batch { source: source(partition), topic: "ingest.events".into(), from, next, writes }])
}

async fn all(store: &Arc<dyn Store>) -> Bucket {
    let mut groups = store.aggregate(AggregateQuery::default()).await.unwrap();
    groups.remove(&(None, None)).unwrap_or_default()
}

async fn counts_once(place: &Place) {
    let store = place.open().await;
    assert_eq!(store.offsets().await.unwrap(), BTreeMap::new());
    assert_eq!(all(&store).await, Bucket::default());
    let first =
        batch(3, 10, 14, vec![write(10, event("a", "m", "1", 5)), write(12, event("a", "m", "2", 6))]);
    store.apply(first.clone()).await.unwrap();
    store.apply(first).await.unwrap();
    // Half of it is there already, and it ends with records that are not for the store.
    let second = [write(12, event("a", "m", "2", 6)), write(14, event("b", "m", "4", 7))];
    store.apply(batch(3, 12, 20, second.to_vec())).await.unwrap();
    assert_eq!(store.offsets().await.unwrap(), BTreeMap::from([(source(3), 20)]));
    assert_eq!((all(&store).await.count, all(&store).await.sum.to_string()), (3, "7".into()));
    assert_eq!(store.totals().await.unwrap(), Totals { processed: 3, ..Totals::default() });
    store.probe().await.unwrap();
    drop(store);
    let store = place.open().await;
    assert_eq!(store.offsets().await.unwrap(), BTreeMap::from([(source(3), 20)]));
    assert_eq!(all(&store).await.count, 3);
    let id = event("b", "m", "4", 7).id();
    let row = &store.get(vec![id, EventId::of(b"none")]).await.unwrap()[&id];
    assert_eq!((row.topic.as_str(), row.partition, row.offset), ("ingest.events", 3, 14));
    assert_eq!((row.time_ms, row.received_ms, row.status), (7, 1014, Status::Processed));
}

async fn gap(place: &Place) {
    let store = place.open().await;
    store.apply(batch(0, 0, 2, vec![write(1, event("a", "m", "1", 5))])).await.unwrap();
    let mut two = batch(1, 0, 1, vec![write(0, event("b", "m", "1", 5))]).to_vec();
    two.extend(batch(0, 3, 4, vec![write(3, event("c", "m", "1", 5))]).to_vec());
    let error = store.apply(two.into()).await.unwrap_err();
    assert_eq!(error, StoreError::Behind { of: source(0), next: 2 });
    assert_eq!(store.offsets().await.unwrap(), BTreeMap::from([(source(0), 2)]));
    assert_eq!(all(&store).await.count, 1);
}

async fn one_event(place: &Place) {
    let store = place.open().await;
    let same = || event("a", "m", "12.50", 5);
    store.apply(batch(0, 0, 2, vec![write(0, same()), write(1, same())])).await.unwrap();
    store.apply(batch(1, 0, 1, vec![write(0, same())])).await.unwrap();
    assert_eq!(store.totals().await.unwrap(), Totals { processed: 1, duplicates: 2, ..Totals::default() });
    assert_eq!(all(&store).await.sum.to_string(), "12.5");
    let row = &store.get(vec![same().id()]).await.unwrap()[&same().id()];
    assert_eq!((row.partition, row.offset), (0, 0));
}

async fn refused(place: &Place) {
    let store = place.open().await;
    let rejected = Write {
        verdict: Verdict::Rejected { client: Some("a".into()), reason: "invalid_amount: no".into() },
        original: Some("{\"count\":\"many\"}".into()),
        ..write(0, event("-", "-", "0", 0))
    };
    let failed = failed(1, event("a", "m", "3", 40));
    store.apply(batch(0, 0, 2, vec![rejected.clone(), failed.clone()])).await.unwrap();
    assert_eq!(store.totals().await.unwrap(), Totals { rejected: 1, failed: 1, ..Totals::default() });
    assert_eq!(all(&store).await, Bucket::default());
    let list = |status, client: Option<&str>| EventFilter {
        status,
        client: client.map(str::to_owned),
        limit: 10,
        ..EventFilter::default()
    };
    let found = store.list(list(Some(Status::Rejected), Some("a"))).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].id, rejected.id);
    assert_eq!(found[0].reason.as_deref(), Some("invalid_amount: no"));
    assert_eq!(found[0].original.as_deref(), Some("{\"count\":\"many\"}"));
    assert_eq!((found[0].time_ms, found[0].metric.as_deref(), &found[0].amount), (1000, None, &None));
    let found = store.list(list(Some(Status::Failed), None)).await.unwrap();
    assert_eq!((found.len(), found[0].attempts, found[0].metric.as_deref()), (1, Some(5), Some("m")));
    assert_eq!(store.list(list(Some(Status::Processed), None)).await.unwrap(), []);
    assert_eq!(store.list(list(Some(Status::Failed), Some("b"))).await.unwrap(), []);
    assert_eq!(store.list(list(None, None)).await.unwrap().len(), 2);
}

async fn redriven(place: &Place) {
    let store = place.open().await;
    let event = || event("a", "m", "3", 40);
    let again = |offset| Write { redriven: true, ..write(offset, event()) };
    // Resent, it stays failed; redriven it counts, and then no more.
    store.apply(batch(0, 0, 2, vec![failed(0, event()), write(1, event())])).await.unwrap();
    assert_eq!(store.totals().await.unwrap(), Totals { failed: 1, duplicates: 1, ..Totals::default() });
    store.apply(batch(0, 2, 3, vec![again(2)])).await.unwrap();
    store
        .apply(batch(0, 3, 5, vec![again(3), Write { redriven: true, ..failed(4, event()) }]))
        .await
        .unwrap();
    assert_eq!(store.totals().await.unwrap(), Totals { processed: 1, duplicates: 3, ..Totals::default() });
    assert_eq!((all(&store).await.count, all(&store).await.sum.to_string()), (1, "3".into()));
    let row = &store.get(vec![event().id()]).await.unwrap()[&event().id()];
    assert_eq!(
        (row.status, &row.reason, row.attempts, &row.original),
        (Status::Processed, &None, None, &None)
    );
    // Failed and redriven in one batch.
    let other = || same_event("b");
    let second = Write { redriven: true, ..write(6, other()) };
    store.apply(batch(0, 5, 7, vec![failed(5, other()), second])).await.unwrap();
    assert_eq!(store.totals().await.unwrap(), Totals { processed: 2, duplicates: 3, ..Totals::default() });
}

fn same_event(client: &str) -> Event {
    event(client, "m", "3", 40)
}

async fn exact(place: &Place) {
    let store = place.open().await;
    let amounts = ["0.1", "0.2", "-999999999999999999.999999999999999999", "999999999999999999"];
    let writes = amounts
        .iter()
        .enumerate()
        .map(|(at, amount)| write(at as i64, event("é漢\"'\\ %_", "m", amount, at as i64)));
    store.apply(batch(0, 0, 4, writes.collect())).await.unwrap();
    for query in [
        AggregateQuery::default(),
        AggregateQuery { from_ms: Some(0), to_ms: Some(4), ..AggregateQuery::default() },
    ] {
        let query = AggregateQuery { by_client: true, ..query };
        let groups = store.aggregate(query).await.unwrap();
        let bucket = &groups[&(Some("é漢\"'\\ %_".into()), None)];
        assert_eq!(bucket.sum.to_string(), "-0.699999999999999999");
        assert_eq!(bucket.min.as_ref().unwrap().to_string(), amounts[2]);
        assert_eq!(bucket.max.as_ref().unwrap().to_string(), amounts[3]);
        assert_eq!(bucket.sum.mean(bucket.count).unwrap().to_string(), "-0.175");
    }
}

/// Random batches, and every kind of question about them, against plain sums over a list.
async fn model(place: &Place) {
    let mut rng = StdRng::seed_from_u64(12);
    let store = place.open().await;
    let mut rows: BTreeMap<EventId, Event> = BTreeMap::new();
    let mut next = [0i64; 3];
    for _ in 0..40 {
        let mut batches = Vec::new();
        for partition in 0..3 {
            let from = next[partition as usize];
            let mut writes = Vec::new();
            for offset in from..from + rng.random_range(0..25) {
                // Moments close together and far apart, on and beside the edges of buckets.
                let base = [1_705_276_800_000i64, 1_705_314_600_000, 1_705_276_800_000 + 40 * 86_400_000];
                let spread = [2i64, 90_000, 5_000_000, 200_000_000, 9_000_000_000];
                let spread = spread[rng.random_range(0..5)];
                let time = base[rng.random_range(0..3)] + rng.random_range(0..spread);
                let amount = format!("{}.{:02}", rng.random_range(-50..50), rng.random_range(0..100));
                let (client, metric) = (rng.random_range(0..4), rng.random_range(0..3));
                let event = event(&format!("c{client}"), &format!("m{metric}"), &amount, time);
                rows.insert(event.id(), event.clone());
                writes.push(write(offset, event));
            }
            next[partition as usize] = writes.last().map_or(from, |write| write.offset + 1);
            batches.extend(batch(partition, from, next[partition as usize], writes).to_vec());
        }
        store.apply(batches.into()).await.unwrap();
    }
    let times: Vec<i64> = rows.values().map(|event| event.time_ms).collect();
    for _ in 0..300 {
        let edge = |rng: &mut StdRng| {
            let time = times[rng.random_range(0..times.len())];
            let rounded = [1, 60_000, 3_600_000, 86_400_000][rng.random_range(0..4)];
            rng.random_bool(0.8).then_some(time / rounded * rounded)
        };
        let pick = |rng: &mut StdRng, letter: char, of: u32| {
            rng.random_bool(0.5).then(|| format!("{letter}{}", rng.random_range(0..of)))
        };
        let query = AggregateQuery {
            client: pick(&mut rng, 'c', 5),
            metric: pick(&mut rng, 'm', 4),
            from_ms: edge(&mut rng),
            to_ms: edge(&mut rng),
            by_client: rng.random(),
            by_metric: rng.random(),
        };
        let in_range = |event: &&Event| {
            query.client.as_ref().is_none_or(|client| *client == event.client)
                && query.from_ms.is_none_or(|from| event.time_ms >= from)
                && query.to_ms.is_none_or(|to| event.time_ms < to)
        };
        let mut expected: BTreeMap<_, (u64, Amount, BTreeSet<Amount>)> = BTreeMap::new();
        let of_metric = |event: &&Event| query.metric.as_ref().is_none_or(|metric| *metric == event.metric);
        for event in rows.values().filter(in_range).filter(of_metric) {
            let key = (
                query.by_client.then(|| event.client.clone()),
                query.by_metric.then(|| event.metric.clone()),
            );
            let (count, sum, all) =
                expected.entry(key).or_insert_with(|| (0, Amount::zero(), BTreeSet::new()));
            *count += 1;
            sum.add(&event.amount);
            all.insert(event.amount.clone());
        }
        let shown =
            |count: u64, sum: &Amount, min: &Amount, max: &Amount| format!("{count} {sum} {min} {max}");
        let expected: BTreeMap<GroupKey, String> = expected
            .into_iter()
            .map(|(key, (count, sum, all))| {
                (key, shown(count, &sum, all.first().unwrap(), all.last().unwrap()))
            })
            .collect();
        let found: BTreeMap<GroupKey, String> = store
            .aggregate(query.clone())
            .await
            .unwrap()
            .into_iter()
            .map(|(key, b)| (key, shown(b.count, &b.sum, b.min.as_ref().unwrap(), b.max.as_ref().unwrap())))
            .collect();
        assert_eq!(found, expected, "{query:?}");

        let (limit, skip) = (rng.random_range(0..30), rng.random_range(0..20));
        let filter = EventFilter {
            client: query.client.clone(),
            status: rng.random_bool(0.5).then_some(Status::Processed),
            from_ms: query.from_ms,
            to_ms: query.to_ms,
            limit,
            skip,
        };
        let mut expected: Vec<_> = rows
            .iter()
            .filter(|(_, event)| in_range(event))
            .map(|(id, event)| (event.time_ms, *id))
            .collect();
        expected.sort_by(|a, b| b.cmp(a));
        let expected: Vec<_> = expected.into_iter().skip(skip as usize).take(limit as usize).collect();
        let found = store.list(filter.clone()).await.unwrap();
        assert_eq!(found.iter().map(|row| (row.time_ms, row.id)).collect::<Vec<_>>(), expected, "{filter:?}");
    }
}

/// A member that lost its partition and does not know it brings what the new owner brings, too.
async fn two_writers(place: &Place) {
    let (old, new) = (place.open().await, place.open().await);
    let part = |at: i64| {
        let writes = (at * 10..at * 10 + 10).map(|offset| write(offset, event("a", "m", "1", offset)));
        batch(0, at * 10, at * 10 + 10, writes.collect())
    };
    let bring = |store: Arc<dyn Store>| async move {
        for at in 0..20 {
            let mut tries = 0;
            while let Err(error) = store.apply(part(at)).await {
                assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
                tries += 1;
                assert!(tries < 20, "{error}");
            }
        }
    };
    tokio::join!(bring(old.clone()), bring(new.clone()));
    assert_eq!(new.offsets().await.unwrap(), BTreeMap::from([(source(0), 200)]));
    assert_eq!((all(&old).await.count, all(&new).await.sum.to_string()), (200, "200".into()));
}
