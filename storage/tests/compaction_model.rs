//! A compacted log against what was written to it: whatever is appended, however often it is compacted, and however
//! the process ends.

mod common;
mod keyed;

use keyed::Keyed;
use proptest::prelude::*;
use strandline_record::{Compression, Offset};
use strandline_storage::disk::SimDisk;

#[derive(Clone, Debug)]
enum Op {
    Append {
        keys: Vec<(u8, bool)>,
        codec: u8,
        producer: Option<i64>,
    },
    /// Time passes.
    Wait {
        ms: i64,
    },
    Compact,
    /// A turn with so few bytes that a pass takes many.
    CompactSome {
        bytes: u64,
    },
    Flush,
    Checkpoint,
    NewEpoch,
    /// Cuts at so many offsets before the end, as long as that is not below the high watermark.
    Truncate {
        back: i64,
    },
    Advance {
        by: i64,
    },
    CloseAndOpen,
    Kill,
    PowerLoss,
    DieAtCompaction {
        at: u64,
        power: bool,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let keys = proptest::collection::vec((0..30u8, proptest::bool::weighted(0.2)), 1..6);
    prop_oneof![
        14 => (keys, 0..5u8, proptest::option::of(0..3i64))
            .prop_map(|(keys, codec, producer)| Op::Append { keys, codec, producer }),
        2 => (0..1500i64).prop_map(|ms| Op::Wait { ms }),
        3 => Just(Op::Compact),
        3 => (1..2500u64).prop_map(|bytes| Op::CompactSome { bytes }),
        4 => Just(Op::Flush),
        2 => Just(Op::Checkpoint),
        1 => Just(Op::NewEpoch),
        1 => (0..6i64).prop_map(|back| Op::Truncate { back }),
        1 => (0..20i64).prop_map(|by| Op::Advance { by }),
        1 => Just(Op::CloseAndOpen),
        1 => Just(Op::Kill),
        1 => Just(Op::PowerLoss),
        1 => (0..40u64, any::<bool>()).prop_map(|(at, power)| Op::DieAtCompaction { at, power }),
    ]
}

fn apply(mut it: Keyed, op: &Op) -> Keyed {
    const GOES_ON: &str = "nothing fails on this disk";
    match op {
        Op::Append { keys, codec, producer } => {
            let codec = Compression::from_id(*codec).expect("a codec");
            it.append(keys, codec, *producer).expect(GOES_ON);
        }
        Op::Wait { ms } => it.now += ms,
        Op::Compact => {
            it.compact().expect(GOES_ON);
            it.check();
        }
        Op::CompactSome { bytes } => {
            it.log().set_retention_bound(it.log().flushed_end());
            it.log().set_tombstone_bound(it.log().flushed_end());
            it.node.store.compact(it.now, *bytes, true);
            it.node.host.run_named("compaction").expect(GOES_ON);
        }
        Op::Flush => it.flush().expect(GOES_ON),
        Op::Checkpoint => it.checkpoint().expect(GOES_ON),
        Op::NewEpoch => it.epoch += 1,
        Op::Truncate { back } => {
            let log = it.log();
            let to = (log.log_end().get() - back).max(log.flushed_end().get());
            let end = log.truncate_to(Offset(to)).expect(GOES_ON);
            it.written.retain(|record| record.offset < end.get());
            it.epoch += 1;
            it.generation += 1;
            it.producers.clear();
        }
        Op::Advance { by } => {
            let log = it.log();
            let to = log.log_start().plus(*by).min(log.flushed_end());
            log.advance_log_start(to).expect(GOES_ON);
        }
        Op::CloseAndOpen => {
            it.flush().expect(GOES_ON);
            it.node.store.close_clean(None).expect(GOES_ON);
            let disk = it.node.disk.clone();
            disk.crash();
            return it.reopen(&disk);
        }
        Op::Kill => {
            let disk = it.node.disk.clone();
            disk.crash();
            return it.reopen(&disk);
        }
        Op::PowerLoss => return power_loss(it),
        Op::DieAtCompaction { at, power } => {
            let disk = it.node.disk.clone();
            disk.set_crash_at_op(disk.op_count() + at);
            // Done, or cut short.
            let _ = it.compact().and_then(|()| it.checkpoint());
            if *power {
                return power_loss(it);
            }
            disk.crash();
            return it.reopen(&disk);
        }
    }
    it
}

fn power_loss(it: Keyed) -> Keyed {
    let flushed = it.log().flushed_end();
    let disk = it.node.disk.clone();
    disk.power_loss();
    let it = it.reopen(&disk);
    assert!(it.log().log_end() >= flushed, "what was flushed is there");
    it
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, max_shrink_iters: 4000, ..ProptestConfig::default() })]

    #[test]
    fn the_last_value_of_each_key_is_always_there(seed: u64, ops in proptest::collection::vec(op(), 1..120)) {
        let mut it = Keyed::open(&SimDisk::new(seed)).expect("a fresh disk opens");
        for op in &ops {
            it = apply(it, op);
        }
        it.check();
        it.check_producers();
    }
}
