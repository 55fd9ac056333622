use super::*;
use crate::backoff::fork;
use crate::metadata::PartitionDescription;
use proptest::prelude::*;
use strandline_record::{DecodeLimits, TopicId, decode_batch};

fn topic(name: &str, leaders: &[Option<u64>]) -> TopicDescription {
    let partition = |(i, leader): (usize, &Option<u64>)| PartitionDescription {
        partition: i as i32,
        leader: *leader,
        leader_epoch: 0,
        partition_epoch: 0,
        replicas: vec![],
        isr: vec![],
        elr: vec![],
        reassignment: vec![],
    };
    TopicDescription {
        name: name.into(),
        id: TopicId::default(),
        partitions: leaders.iter().enumerate().map(partition).collect(),
        configs: BTreeMap::new(),
    }
}

fn accumulator(batch_bytes: usize, linger_ms: u64) -> Accumulator {
    let limits = Limits {
        batch_bytes,
        linger: Duration::from_millis(linger_ms),
        compression: Compression::None,
        compression_level: None,
    };
    let mut accumulator = Accumulator::new(limits, fork(1, 1));
    accumulator.put_topic(&topic("t", &[Some(1), Some(2), Some(3)]));
    accumulator
}

fn append(accumulator: &mut Accumulator, record: Record, now: Instant) -> (DeliveryHandle, bool) {
    match accumulator.append(&record, 7, || now) {
        Appended::Done { handle, wake } => (handle, wake),
        _ => panic!("{record:?} was not appended"),
    }
}

fn values(gathered: Gathered) -> Vec<String> {
    let batch =
        decode_batch(gathered.builder.build(), DecodeLimits { max_decompressed_bytes: 1 << 20 }).unwrap();
    batch
        .records()
        .unwrap()
        .into_iter()
        .map(|r| String::from_utf8(r.value.unwrap().to_vec()).unwrap())
        .collect()
}

fn in_partition(n: i32, value: &str) -> Record {
    Record::to("t").partition(n).value(value.to_owned())
}

#[tokio::test]
async fn a_batch_lingers_and_the_sender_is_woken_for_the_first_one_only() {
    let mut accumulator = accumulator(1000, 5);
    let start = Instant::now();
    assert!(append(&mut accumulator, in_partition(0, "a"), start).1, "nobody knew of a deadline");
    assert!(!append(&mut accumulator, in_partition(1, "b"), start).1);
    assert!(!append(&mut accumulator, in_partition(0, "c"), start).1);
    accumulator.close_due(start, false);
    assert!(accumulator.ready().is_empty());
    assert_eq!(accumulator.next_deadline(), Some(start + Duration::from_millis(5)));
    accumulator.close_due(start + Duration::from_millis(5), false);
    assert_eq!(accumulator.ready(), [0, 1]);
    assert_eq!(values(accumulator.take(0).unwrap()), ["a", "c"]);
    assert_eq!(values(accumulator.take(1).unwrap()), ["b"]);
    assert!(accumulator.ready().is_empty() && accumulator.next_deadline().is_none());
    assert!(!accumulator.is_idle(), "they are not settled");
}

#[tokio::test]
async fn a_full_batch_leaves_at_once_and_a_record_larger_than_a_batch_travels_alone() {
    let mut accumulator = accumulator(500, 1000);
    let start = Instant::now();
    let _ = append(&mut accumulator, in_partition(0, "small"), start);
    let (_, wake) = append(&mut accumulator, in_partition(0, &"x".repeat(2000)), start);
    assert!(wake);
    assert_eq!(accumulator.ready(), [0]);
    assert_eq!(values(accumulator.take(0).unwrap()), ["small"]);
    assert_eq!(values(accumulator.take(0).unwrap()).len(), 1);
    assert!(accumulator.take(0).is_none());
}

#[tokio::test]
async fn no_batch_outgrows_its_topic_but_for_a_record_that_does_so_alone() {
    let mut accumulator = accumulator(100_000, 1000);
    let mut small = topic("small", &[Some(1)]);
    small.configs.insert("max.message.bytes".into(), "300".into());
    accumulator.put_topic(&small);
    let start = Instant::now();
    let record = |value: &str| Record::to("small").partition(0).value(value.to_owned());
    for value in ["a".repeat(100), "b".repeat(100), "c".repeat(2000), "d".repeat(50)] {
        let _ = append(&mut accumulator, record(&value), start);
    }
    accumulator.close_due(start, true);
    let slot = accumulator.ready()[0];
    let batches: Vec<Vec<usize>> = std::iter::from_fn(|| accumulator.take(slot))
        .map(|gathered| values(gathered).iter().map(String::len).collect())
        .collect();
    assert_eq!(batches, [vec![100, 100], vec![2000], vec![50]]);
}

#[tokio::test]
async fn a_flush_covers_what_was_begun_before_it_and_nothing_later() {
    let mut accumulator = accumulator(1000, 1000);
    let start = Instant::now();
    let _ = append(&mut accumulator, in_partition(0, "before"), start);
    let below = accumulator.flush();
    let _ = append(&mut accumulator, in_partition(1, "after"), start);
    accumulator.close_due(start, false);
    assert_eq!(accumulator.ready(), [0]);
    assert!(!accumulator.is_settled_below(below));
    let gathered = accumulator.take(0).unwrap();
    accumulator.settled(gathered.number);
    assert!(accumulator.is_settled_below(below));
    assert!(!accumulator.is_idle());
}

#[tokio::test]
async fn equal_keys_share_a_partition_chosen_as_kafka_does() {
    let mut accumulator = accumulator(1000, 5);
    let start = Instant::now();
    let expected = strandline_record::partition_for_key(b"customer-7", 3).get();
    for _ in 0..3 {
        let (handle, _) = append(&mut accumulator, Record::to("t").key("customer-7").value("v"), start);
        assert_eq!(handle.partition(), expected);
    }
}

#[tokio::test]
async fn keyless_records_avoid_partitions_without_a_leader() {
    let mut accumulator = accumulator(100, 5);
    accumulator.put_topic(&topic("t", &[None, Some(2), None]));
    for _ in 0..50 {
        let (handle, _) = append(&mut accumulator, Record::to("t").value("0123456789"), Instant::now());
        assert_eq!(handle.partition(), 1);
    }
    accumulator.put_topic(&topic("t", &[None, None, None]));
    let _ = append(&mut accumulator, Record::to("t").value("somewhere"), Instant::now());
}

#[tokio::test]
async fn partitions_that_were_added_are_used_and_those_that_are_not_there_refused() {
    let mut accumulator = accumulator(100, 5);
    let record = in_partition(4, "v");
    assert!(matches!(accumulator.append(&record, 0, Instant::now), Appended::NoSuchPartition(3)));
    accumulator.put_topic(&topic("t", &[Some(1); 5]));
    assert!(matches!(accumulator.append(&record, 0, Instant::now), Appended::Done { .. }));
    assert!(matches!(
        accumulator.append(&in_partition(-1, "v"), 0, Instant::now),
        Appended::NoSuchPartition(5)
    ));
    assert!(matches!(accumulator.append(&Record::to("other"), 0, Instant::now), Appended::UnknownTopic));
}

proptest! {
    /// Any mix of appends, closings and takings gives every record back, once, in order, in its partition.
    #[test]
    fn no_record_is_lost_or_moved(
        steps in prop::collection::vec((0..3i32, 0..60usize, 0..4u8), 1..200),
        batch_bytes in 80..400usize,
    ) {
        let mut accumulator = accumulator(batch_bytes, 3);
        let mut now = Instant::now();
        let mut given: Vec<Vec<String>> = vec![Vec::new(); 3];
        let mut taken: Vec<Vec<String>> = vec![Vec::new(); 3];
        for (i, (partition, padding, act)) in steps.iter().enumerate() {
            let value = format!("{i}{}", "x".repeat(*padding));
            given[*partition as usize].push(value.clone());
            drop(append(&mut accumulator, in_partition(*partition, &value), now));
            match act {
                0 => now += Duration::from_millis(1),
                1 => accumulator.close_due(now, false),
                2 => {
                    for slot in accumulator.ready() {
                        let gathered = accumulator.take(slot).unwrap();
                        prop_assert!(gathered.builder.count() == 1 || gathered.builder.estimated_bytes() <= batch_bytes);
                        taken[slot].extend(values(gathered));
                    }
                }
                _ => {}
            }
        }
        accumulator.close_due(now, true);
        for (slot, taken) in taken.iter_mut().enumerate() {
            while let Some(gathered) = accumulator.take(slot) {
                taken.extend(values(gathered));
            }
        }
        prop_assert!(accumulator.next_deadline().is_none());
        prop_assert_eq!(given, taken);
    }
}
