//! The log on both disks: openraft's own storage suite, what a start makes of every kind of damage, and a crash
//! at every single I/O.

use super::{LogConfig, LogError, LogStore};
use crate::feed::ImageFeed;
use crate::snapshots::SnapshotStore;
use crate::state_machine::StateMachine;
use crate::state_store::MemoryStateStore;
use crate::types::{Entry, LogId, Proposal, TypeConfig, Vote, scope};
use openraft::EntryPayload;
use openraft::storage::{RaftLogReader, RaftLogStorage, RaftLogStorageExt};
use openraft::testing::log::{StoreBuilder, Suite};
use parking_lot::Mutex;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use strandline_storage::disk::sim::{SimFault, SimOp, Unsynced};
use strandline_storage::disk::{Disk, OpenMode, SimDisk};
use strandline_storage::worker::{ThreadHost, Waker, Worker, WorkerHost};

/// Does the work where it is asked for, so that one operation follows another as written.
#[derive(Debug)]
struct InlineHost;

impl WorkerHost for InlineHost {
    fn spawn(&self, worker: Box<dyn Worker>) -> Waker {
        let worker = Mutex::new(worker);
        Waker::new(move || {
            // The error has been told to whoever waited.
            let _ = worker.lock().run();
        })
    }
}

const DIR: &str = "/data/raft/log";

fn config() -> LogConfig {
    LogConfig { segment_bytes: 1500, cache_bytes: 300 }
}

/// A disk with the node's data directory, which is the node's own to make durable.
fn disk(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    disk.create_dir_all(Path::new("/data")).unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    disk
}

fn open(disk: &SimDisk) -> Result<LogStore, LogError> {
    LogStore::open(Arc::new(disk.clone()), &InlineHost, Path::new(DIR), &config(), 77)
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(scope(1, work))
}

fn log_id(term: u64, index: u64) -> LogId {
    LogId::new(term.into(), index)
}

fn entry(term: u64, index: u64, bytes: usize) -> Entry {
    let fill = (term * 31 + index) as u8;
    Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(Proposal(vec![fill; bytes].into())) }
}

/// What a log says of itself, entries read one by one from wherever they are.
#[derive(Clone, Debug, Default, PartialEq)]
struct Content {
    vote: Option<Vote>,
    purged: Option<LogId>,
    entries: Vec<Entry>,
}

async fn content(log: &mut LogStore) -> Content {
    let state = log.get_log_state().await.unwrap();
    let entries = log.try_get_log_entries(..).await.unwrap();
    assert_eq!(state.last_log_id, entries.last().map(|e| e.log_id).or(state.last_purged_log_id));
    Content { vote: log.read_vote().await.unwrap(), purged: state.last_purged_log_id, entries }
}

/// One operation, on a log and on what the log should then say.
#[derive(Clone, Debug)]
enum Op {
    Vote(u64),
    Append(u64, std::ops::Range<u64>, usize),
    Committed(u64, u64),
    Truncate(Option<(u64, u64)>),
    Purge(u64, u64),
}

impl Op {
    async fn run(&self, log: &mut LogStore) -> io::Result<()> {
        match self.clone() {
            Op::Vote(term) => log.save_vote(&Vote::new(term, 1)).await,
            Op::Append(term, indices, bytes) => {
                let entries = indices.map(|i| entry(term, i, bytes));
                log.blocking_append(entries).await.map_err(io::Error::other)
            }
            Op::Committed(term, index) => log.save_committed(Some(log_id(term, index))).await,
            Op::Truncate(last) => log.truncate_after(last.map(|(t, i)| log_id(t, i))).await,
            Op::Purge(term, index) => log.purge(log_id(term, index)).await,
        }
    }

    fn apply(&self, to: &mut Content) {
        match self.clone() {
            Op::Vote(term) => to.vote = Some(Vote::new(term, 1)),
            Op::Append(term, indices, bytes) => to.entries.extend(indices.map(|i| entry(term, i, bytes))),
            Op::Committed(..) => {}
            Op::Truncate(last) => {
                to.entries.retain(|e| last.is_some_and(|(_, index)| e.log_id.index <= index));
            }
            Op::Purge(term, index) => {
                to.purged = Some(log_id(term, index));
                to.entries.retain(|e| e.log_id.index > index);
            }
        }
    }
}

/// Votes, appends over several segments, a rewritten tail, purges within and beyond the log.
fn script() -> Vec<Op> {
    vec![
        Op::Vote(1),
        Op::Append(1, 0..1, 10),
        Op::Append(1, 1..6, 200),
        Op::Committed(1, 3),
        Op::Append(1, 6..7, 30),
        Op::Vote(2),
        Op::Truncate(Some((1, 4))),
        Op::Append(2, 5..9, 300),
        Op::Committed(2, 6),
        Op::Purge(1, 3),
        Op::Append(2, 9..12, 400),
        Op::Purge(2, 8),
        Op::Vote(3),
        Op::Append(3, 12..13, 2000),
        Op::Append(3, 13..20, 100),
        Op::Truncate(Some((3, 15))),
        Op::Purge(3, 30),
        Op::Vote(4),
        Op::Append(4, 31..35, 500),
        Op::Vote(5),
    ]
}

#[test]
fn a_log_opened_again_says_what_it_said() {
    let disk = SimDisk::new(1);
    block_on(async {
        let mut expected = Content::default();
        let mut log = open(&disk).unwrap();
        assert!(log.is_blank());
        for op in script() {
            op.run(&mut log).await.unwrap();
            op.apply(&mut expected);
            assert_eq!(content(&mut log).await, expected, "{op:?}");
            // The committed mark alone is not written: it rides along with the next frame.
            if !matches!(op, Op::Committed(..)) {
                log = open(&disk).unwrap();
                assert_eq!(content(&mut log).await, expected, "opened after {op:?}");
            }
        }
        assert!(!log.is_blank());
        assert_eq!(log.read_committed().await.unwrap(), Some(log_id(2, 6)));
    });
}

#[test]
fn power_loss_at_any_operation_leaves_the_log_before_or_after_what_was_under_way() {
    let (first, total) = {
        let disk = disk(1);
        let first = disk.op_count();
        block_on(async {
            let mut log = open(&disk).unwrap();
            for op in script() {
                op.run(&mut log).await.unwrap();
            }
        });
        (first, disk.op_count())
    };
    assert!(total > 60, "{total} operations");
    for unsynced in [Unsynced::Random, Unsynced::Lost, Unsynced::Kept] {
        for crash_at in first..total {
            let disk = disk(crash_at);
            disk.set_crash_at_op(crash_at);
            block_on(async {
                let mut done = Content::default();
                let mut attempted = None;
                if let Ok(mut log) = open(&disk) {
                    for op in script() {
                        let mut after = done.clone();
                        op.apply(&mut after);
                        if op.run(&mut log).await.is_err() {
                            attempted = Some(after);
                            break;
                        }
                        done = after;
                    }
                }
                disk.power_loss_with(unsynced);
                // Twice: opening must not change what is found.
                for _ in 0..2 {
                    let mut log =
                        open(&disk).unwrap_or_else(|e| panic!("crash at {crash_at}, {unsynced:?}: {e}"));
                    let found = content(&mut log).await;
                    assert!(
                        found == done || Some(&found) == attempted.as_ref(),
                        "crash at {crash_at}, {unsynced:?}: found {found:?}, done {done:?}, under way {attempted:?}"
                    );
                }
                let mut log = open(&disk).unwrap();
                let next = content(&mut log).await.entries.last().map(|e| e.log_id.index + 1);
                let next = next.or(log.get_log_state().await.unwrap().last_log_id.map(|l| l.index + 1));
                let more = Op::Append(9, next.unwrap_or(0)..next.unwrap_or(0) + 3, 50);
                more.run(&mut log).await.unwrap();
                let before = content(&mut log).await;
                disk.power_loss_with(unsynced);
                assert_eq!(
                    content(&mut open(&disk).unwrap()).await,
                    before,
                    "crash at {crash_at}, {unsynced:?}"
                );
            });
        }
    }
}

#[test]
fn a_torn_tail_is_cut_wherever_it_was_torn() {
    let disk = SimDisk::new(1);
    let (full, before) = block_on(async {
        let mut log = open(&disk).unwrap();
        Op::Vote(1).run(&mut log).await.unwrap();
        Op::Append(1, 0..2, 50).run(&mut log).await.unwrap();
        let before = content(&mut log).await;
        Op::Append(1, 2..5, 50).run(&mut log).await.unwrap();
        (content(&mut log).await, before)
    });
    let path = PathBuf::from(DIR).join(format!("{:020}.raftlog", 0));
    let bytes = disk.read_file(&path, 1 << 20).unwrap();
    let mut found = Vec::new();
    for len in (513..=bytes.len()).rev() {
        let copy = SimDisk::new(2);
        copy.create_dir_all(Path::new(DIR)).unwrap();
        copy.write_file_atomically(&path, &bytes[..len]).unwrap();
        let content = block_on(async { content(&mut open(&copy).unwrap()).await });
        if found.last() != Some(&content) {
            found.push(content);
        }
    }
    assert_eq!(found[0], full);
    assert_eq!(found[1], before, "a frame is there as a whole or not at all");
    // Half a frame of zeros, as when the length reached the disk before the data.
    let copy = SimDisk::new(3);
    copy.create_dir_all(Path::new(DIR)).unwrap();
    let mut torn = bytes.clone();
    let tail = torn.len() - 40;
    torn[tail..].fill(0);
    copy.write_file_atomically(&path, &torn).unwrap();
    assert_eq!(block_on(async { content(&mut open(&copy).unwrap()).await }), before);
}

#[test]
fn any_flipped_bit_before_the_last_frame_is_refused_and_nothing_is_changed() {
    let disk = SimDisk::new(1);
    block_on(async {
        let mut log = open(&disk).unwrap();
        for op in script().into_iter().take(9) {
            op.run(&mut log).await.unwrap();
        }
    });
    let files = disk.files();
    assert!(files.len() > 1, "{files:?}");
    let mut refused = 0;
    for (file, (path, _)) in files.iter().enumerate() {
        let good = disk.read_file(path, 1 << 20).unwrap();
        let last = file + 1 == files.len();
        // The last frame of the last segment cannot be told from a torn tail.
        let end = if last { last_frame(&good) } else { good.len() };
        let checkpoint = u32::from_le_bytes(good[36..40].try_into().unwrap()) as usize;
        let padding = 32 + 20 + checkpoint..512;
        for at in (0..end).filter(|at| !padding.contains(at)).step_by(7) {
            let copy = disk.fork(5);
            copy.flip_bit(path, at as u64, (at % 8) as u8).unwrap();
            let damaged = copy.read_file(path, 1 << 20).unwrap();
            match open(&copy) {
                Err(LogError::Damaged { .. } | LogError::Version { .. }) => refused += 1,
                other => panic!("{}, byte {at}: {other:?}", path.display()),
            }
            assert_eq!(copy.read_file(path, 1 << 20).unwrap(), damaged);
        }
    }
    assert!(refused > 200, "{refused}");
}

/// Where the last frame begins.
fn last_frame(segment: &[u8]) -> usize {
    let magic = &super::frame::encode_frame_header(0, 0, &[])[..4];
    segment.windows(4).rposition(|w| w == magic).unwrap()
}

#[test]
fn a_missing_segment_is_refused() {
    let disk = SimDisk::new(1);
    block_on(async {
        let mut log = open(&disk).unwrap();
        for op in script().into_iter().take(9) {
            op.run(&mut log).await.unwrap();
        }
    });
    let files = disk.files();
    assert!(files.len() >= 3, "{files:?}");
    let middle = disk.fork(2);
    middle.remove_file(&files[1].0).unwrap();
    assert!(matches!(open(&middle), Err(LogError::Damaged { .. })));
    let first = disk.fork(2);
    first.remove_file(&files[0].0).unwrap();
    assert!(matches!(open(&first), Err(LogError::Damaged { .. })));
}

#[test]
fn a_stored_command_that_looks_like_a_frame_is_not_taken_for_one() {
    let disk = SimDisk::new(1);
    let path = PathBuf::from(DIR).join(format!("{:020}.raftlog", 0));
    block_on(async {
        let mut log = open(&disk).unwrap();
        Op::Vote(1).run(&mut log).await.unwrap();
        // All that a client can know: the format. A frame of the future, sealed with a salt that it guesses.
        let mut forged = super::frame::encode_frame_header(0, 999, &[]).to_vec();
        forged.resize(64, 0);
        let payload = EntryPayload::Normal(Proposal(forged.into()));
        log.blocking_append([Entry { log_id: log_id(1, 0), payload }]).await.unwrap();
    });
    let mut bytes = disk.read_file(&path, 1 << 20).unwrap();
    let frame = bytes.windows(4).enumerate().skip(513).find(|(_, w)| *w == &bytes[32..36]).unwrap().0;
    bytes[frame + 30] ^= 1;
    let len = bytes.len();
    disk.write_file_atomically(&path, &bytes[..len]).unwrap();
    // Its own frame is the last one: a torn tail, not damage.
    open(&disk).unwrap();
}

#[test]
fn purging_removes_segments_and_keeps_vote_and_marks() {
    let disk = SimDisk::new(1);
    block_on(async {
        let mut log = open(&disk).unwrap();
        Op::Vote(1).run(&mut log).await.unwrap();
        for index in 0..60 {
            Op::Append(1, index..index + 1, 200).run(&mut log).await.unwrap();
        }
        let before = disk.files().len();
        Op::Purge(1, 57).run(&mut log).await.unwrap();
        assert!(disk.files().len() <= 2 && before > 8, "{before} files, then {}", disk.files().len());
        assert_eq!(log.live_bytes(), content(&mut log).await.entries.len() as u64 * log.live_bytes() / 2);
        let mut again = open(&disk).unwrap();
        assert_eq!(content(&mut again).await.entries, [entry(1, 58, 200), entry(1, 59, 200)]);
        assert_eq!(again.read_vote().await.unwrap(), Some(Vote::new(1, 1)));
    });
}

#[test]
fn entries_that_have_left_memory_are_read_from_disk() {
    let disk = SimDisk::new(1);
    block_on(async {
        let mut log = open(&disk).unwrap();
        Op::Append(1, 0..40, 100).run(&mut log).await.unwrap();
        let in_memory = |log: &LogStore| {
            let shared = log.shared.lock();
            (0..40).filter(|i| shared.state.slot(*i).unwrap().cached.is_some()).count()
        };
        assert!(in_memory(&log) <= 3, "{}", in_memory(&log));
        for range in [0..40, 5..6, 38..40] {
            let expected: Vec<Entry> = range.clone().map(|i| entry(1, i, 100)).collect();
            assert_eq!(log.try_get_log_entries(range).await.unwrap(), expected);
        }
        disk.flip_bit(&disk.files()[0].0, 800, 3).unwrap();
        let rotten = log.try_get_log_entries(0..40).await.unwrap_err();
        assert_eq!(rotten.kind(), io::ErrorKind::InvalidData);
    });
}

#[test]
fn a_failed_sync_fails_everything_after_it() {
    let disk = SimDisk::new(1);
    block_on(async {
        let mut log = open(&disk).unwrap();
        Op::Append(1, 0..1, 10).run(&mut log).await.unwrap();
        disk.inject(SimFault::eio(SimOp::Sync));
        assert!(Op::Append(1, 1..2, 10).run(&mut log).await.is_err());
        for op in [Op::Vote(2), Op::Append(1, 2..3, 10), Op::Purge(1, 0), Op::Truncate(None)] {
            assert!(op.run(&mut log).await.is_err(), "{op:?}");
        }
    });
}

#[test]
fn without_space_for_a_new_segment_the_present_one_goes_on() {
    let disk = SimDisk::new(1);
    block_on(async {
        let mut log = open(&disk).unwrap();
        Op::Append(1, 0..1, 900).run(&mut log).await.unwrap();
        disk.inject(SimFault::enospc(SimOp::Allocate).always());
        for index in 1..9 {
            Op::Append(1, index..index + 1, 300).run(&mut log).await.unwrap();
        }
        assert_eq!(disk.files().len(), 1);
        disk.clear_faults();
        for index in 9..16 {
            Op::Append(1, index..index + 1, 300).run(&mut log).await.unwrap();
        }
        assert!(disk.files().len() > 1, "with space again it rolls");
        assert_eq!(content(&mut open(&disk).unwrap()).await.entries.len(), 16);
    });
}

#[test]
fn a_frame_that_could_not_be_synced_is_made_durable_before_another_follows() {
    // The first frame of the log, one in the middle of a segment, and the first of another segment.
    for before in [0, 2, 8] {
        let disk = disk(1);
        block_on(async {
            let mut log = open(&disk).unwrap();
            for index in 0..before {
                Op::Append(1, index..index + 1, 300).run(&mut log).await.unwrap();
            }
            disk.inject(SimFault::eio(SimOp::Sync));
            assert!(Op::Append(1, before..before + 1, 700).run(&mut log).await.is_err());
            disk.clear_faults();
            drop(log);
            // The process ends, the machine goes on: its page cache still has the frame.
            let mut log = open(&disk).unwrap();
            let kept = content(&mut log).await.entries.len() as u64;
            Op::Append(2, kept..kept + 1, 10).run(&mut log).await.unwrap();
            drop(log);
            disk.power_loss_with(Unsynced::Lost);
            assert_eq!(content(&mut open(&disk).unwrap()).await.entries.len() as u64, kept + 1, "{before}");
        });
    }
}

#[test]
fn concurrent_appends_share_a_sync() {
    let disk = SimDisk::new(1);
    let host = ThreadHost::new(Arc::new(|name, error| panic!("{name}: {error}")));
    let mut log =
        LogStore::open(Arc::new(disk.clone()), &host, Path::new(DIR), &LogConfig::default(), 1).unwrap();
    block_on(async {
        let mut flushed = Vec::new();
        for index in 0..500 {
            let (done, wait) = <TypeConfig as openraft::type_config::TypeConfigExt>::oneshot();
            log.append([entry(1, index, 10)], openraft::storage::IOFlushed::signal(done)).await.unwrap();
            flushed.push(wait);
        }
        for wait in flushed {
            wait.await.unwrap().unwrap();
        }
        let frames = disk.counters().syncs;
        assert!(frames < 400, "500 appends took {frames} syncs");
        assert_eq!(log.try_get_log_entries(..).await.unwrap().len(), 500);
    });
    host.stop();
}

struct Stores;

impl StoreBuilder<TypeConfig, LogStore, StateMachine> for Stores {
    async fn build(&self) -> Result<((), LogStore, StateMachine), openraft::StorageError<TypeConfig>> {
        let disk = disk(1);
        let log = open(&disk).unwrap();
        let snapshots = SnapshotStore::open(Arc::new(disk), Path::new("/data/raft/snapshots")).unwrap();
        let store = Box::new(MemoryStateStore::default());
        let machine = StateMachine::open(store, snapshots, &InlineHost, ImageFeed::default()).unwrap();
        Ok(((), log, machine))
    }
}

#[test]
fn openrafts_own_storage_suite_passes() {
    block_on(Suite::test_all(Stores)).unwrap();
}

#[test]
fn a_half_written_first_block_is_made_again() {
    for len in [0, 1, 31, 32, 100, 511] {
        let disk = SimDisk::new(1);
        disk.create_dir_all(Path::new(DIR)).unwrap();
        let path = PathBuf::from(DIR).join(format!("{:020}.raftlog", 0));
        let file = disk.open(&path, OpenMode::CreateNew).unwrap();
        file.write_all_at(&[io::IoSlice::new(&vec![0x11; len])], 0).unwrap();
        block_on(async {
            let mut log = open(&disk).unwrap();
            Op::Vote(1).run(&mut log).await.unwrap();
            assert_eq!(open(&disk).unwrap().read_vote().await.unwrap(), Some(Vote::new(1, 1)));
        });
    }
}
