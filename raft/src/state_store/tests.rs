//! One contract, both stores; and what only files can suffer.
// Reason: sled works on real files, and so do these tests.
#![allow(clippy::disallowed_methods)]

use super::{Applied, MemoryStateStore, SledStore, StateStore, StoredState};
use crate::types::LogId;
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;
use strandline_metadata::{
    BrokerEndpoints, Command, CommittedOffset, ConsumerGroupChange, Delta, GroupEpoch, Image, Response,
    command::tp, machine,
};
use strandline_record::{BrokerEpoch, BrokerId, Offset, TopicId};
use uuid::Uuid;

const CLUSTER: Uuid = Uuid::from_u128(1);

fn step() -> impl Strategy<Value = Command> {
    let topic = |n: u8| TopicId(Uuid::from_u128(n.into()));
    prop_oneof![
        (0_u64..3).prop_map(|id| Command::RegisterBroker {
            id: BrokerId(id),
            directory: Uuid::from_u128(id.into()),
            cluster_id: CLUSTER,
            endpoints: BrokerEndpoints::default(),
            rack: None,
            clean_epoch: None,
        }),
        (0_u64..3, 1_u64..40)
            .prop_map(|(id, epoch)| Command::UnfenceBroker { id: BrokerId(id), epoch: BrokerEpoch(epoch) }),
        (0_u64..3).prop_map(|id| Command::UnregisterBroker { id: BrokerId(id) }),
        (0_u8..3, 0_u64..3).prop_map(move |(n, id)| Command::CreateTopic {
            id: topic(n),
            name: format!("t{n}").into(),
            assignments: vec![vec![BrokerId(id)]; 3],
            configs: Default::default(),
            now_ms: 1,
        }),
        (0_u8..3).prop_map(move |n| Command::DeleteTopic { id: topic(n) }),
        (0_u8..3, 0_u8..3, 0_i32..3, 0_i64..9).prop_map(move |(g, n, p, offset)| Command::CommitOffsets {
            group: format!("g{g}").into(),
            member: None,
            offsets: vec![(
                tp(topic(n), p),
                CommittedOffset {
                    offset: Offset(offset),
                    leader_epoch: None,
                    metadata: None,
                    commit_time_ms: 0
                }
            )],
        }),
        (0_u8..3, prop::option::of(1_u64..20), 1_i32..5).prop_map(|(g, expected, epoch)| {
            Command::AlterConsumerGroup {
                group: format!("g{g}").into(),
                expected,
                change: ConsumerGroupChange {
                    epoch: GroupEpoch(epoch),
                    target_epoch: GroupEpoch(epoch),
                    topics_hash: 7,
                    members: Default::default(),
                    changed_at_ms: 1,
                },
            }
        }),
        (0_u8..3).prop_map(|g| Command::DeleteGroup { group: format!("g{g}").into() }),
        (1_u32..9).prop_map(|count| Command::AllocateProducerIds { count }),
    ]
}

fn formed() -> (Image, Delta) {
    let (mut image, mut delta) = (Image::default(), Delta::default());
    let form = Command::FormCluster { cluster_id: CLUSTER, now_ms: 3 };
    assert_eq!(machine::apply(&mut image, 1, &form, &mut delta), Response::Done);
    (image, delta)
}

fn stored(image: &Image) -> StoredState {
    let log_id = Some(LogId::new(4_u64.into(), image.index));
    StoredState {
        applied: Applied { log_id, membership: Default::default() },
        image: Arc::new(image.clone()),
    }
}

/// Writes what each run of commands changed, opens the store anew now and then, and finds the last state.
fn keeps_what_is_written(
    mut reopen: impl FnMut(Option<Box<dyn StateStore>>) -> Box<dyn StateStore>,
    runs: &[Vec<Command>],
    full_at: usize,
) {
    let mut store = reopen(None);
    assert_eq!(store.load().unwrap(), None);
    let (mut image, mut delta) = formed();
    delta.full = true;
    for (position, run) in runs.iter().enumerate() {
        for command in run {
            let index = image.index + 1;
            machine::apply(&mut image, index, command, &mut delta);
        }
        delta.full |= position == full_at;
        let state = stored(&image);
        store.write(&state, &std::mem::take(&mut delta)).unwrap();
        if position % 3 == 2 {
            store.flush().unwrap();
            store = reopen(Some(store));
        }
        assert_eq!(store.load().unwrap(), Some(state));
    }
    store.wipe().unwrap();
    assert_eq!(store.load().unwrap(), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn both_stores_give_back_the_last_state_written(
        runs in prop::collection::vec(prop::collection::vec(step(), 1..12), 1..10),
        full_at in 0_usize..10,
    ) {
        keeps_what_is_written(|store| store.unwrap_or_else(|| Box::new(MemoryStateStore::default())), &runs, full_at);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        keeps_what_is_written(|old| { drop(old); Box::new(SledStore::new(&path)) }, &runs, full_at);
    }
}

#[test]
fn what_is_no_state_of_ours_is_wiped_and_the_store_goes_on() {
    type Ruin = fn(&Path);
    let ruins: [(&str, Ruin); 4] = [
        ("an unknown key", |path| put(path, b"x", b"")),
        ("a value that cannot be decoded", |path| put(path, b"b\0\0\0\0\0\0\0\x01", b"\xff\xff\xff")),
        ("a broker key of the wrong length", |path| put(path, b"b1", b"")),
        ("meta of nonsense", |path| put(path, b"m", b"\xff\xff\xff\xff\xff\xff")),
    ];
    for (what, ruin) in ruins {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let (image, delta) = formed();
        let state = stored(&image);
        let mut store = SledStore::new(&path);
        store.write(&state, &Delta { full: true, ..delta }).unwrap();
        store.flush().unwrap();
        drop(store);
        ruin(&path);
        let mut store = SledStore::new(&path);
        assert_eq!(store.load().unwrap(), None, "{what}");
        store.write(&state, &Delta { full: true, ..Delta::default() }).unwrap();
        assert_eq!(store.load().unwrap(), Some(state), "{what}");
    }
}

fn put(path: &Path, key: &[u8], value: &[u8]) {
    let db = sled::open(path)
        .unwrap_or_else(|_| sled::Config::new().path(path).segment_size(64 << 10).open().unwrap());
    db.insert(key, value).unwrap();
    db.flush().unwrap();
}

#[test]
fn a_store_that_was_never_flushed_gives_back_an_earlier_state_or_none() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let (mut image, _) = formed();
    let mut written = Vec::new();
    let mut store = SledStore::new(&path);
    for count in 1..50 {
        let (index, mut delta) = (image.index + 1, Delta { full: count == 1, ..Delta::default() });
        machine::apply(&mut image, index, &Command::AllocateProducerIds { count }, &mut delta);
        store.write(&stored(&image), &delta).unwrap();
        written.push(stored(&image));
        if count == 20 {
            store.flush().unwrap();
        }
    }
    // As after a kill: what the process had not handed over is gone.
    let copy = dir.path().join("copy");
    std::fs::create_dir(&copy).unwrap();
    for file in std::fs::read_dir(&path).unwrap().map(|f| f.unwrap()).filter(|f| f.path().is_file()) {
        std::fs::copy(file.path(), copy.join(file.file_name())).unwrap();
    }
    let found = SledStore::new(&copy).load().unwrap().expect("the flushed state at least");
    assert!(written[19..].contains(&found));
}
