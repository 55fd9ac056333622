//! What the simulated disk does to those who do not sync, and what it grants to those who do.

use proptest::prelude::*;
use std::collections::BTreeSet;
use std::io::{ErrorKind, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use strandline_storage::disk::sim::{SimFault, SimLatency, SimOp, Unsynced, is_crash};
use strandline_storage::disk::{Disk, DiskFile, OpenMode, SimDisk};

const SEEDS: std::ops::Range<u64> = 0..200;

fn file(disk: &SimDisk, path: &str) -> Arc<dyn DiskFile> {
    disk.open(Path::new(path), OpenMode::ReadWriteCreate).unwrap()
}

fn write(file: &dyn DiskFile, bytes: &[u8], offset: u64) -> std::io::Result<()> {
    file.write_all_at(&[IoSlice::new(bytes)], offset)
}

fn read(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
    disk.read_file(Path::new(path), 1 << 20).ok()
}

/// A disk with a durable file `/f` of three pages of 1.
fn prepared(seed: u64) -> (SimDisk, Arc<dyn DiskFile>) {
    let disk = SimDisk::new(seed);
    let file = file(&disk, "/f");
    write(&*file, &[1; 3 * 4096], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/")).unwrap();
    (disk, file)
}

#[test]
fn what_was_synced_under_a_synced_name_survives_every_power_loss() {
    for seed in SEEDS {
        let (disk, _) = prepared(seed);
        disk.create_dir_all(Path::new("/a/b")).unwrap();
        write(&*file(&disk, "/a/b/g"), b"deep", 0).unwrap();
        disk.sync_filesystem(Path::new("/")).unwrap();
        for _ in 0..3 {
            disk.power_loss();
            assert_eq!(read(&disk, "/f"), Some(vec![1; 3 * 4096]));
            assert_eq!(read(&disk, "/a/b/g"), Some(b"deep".to_vec()));
        }
    }
}

#[test]
fn unsynced_pages_survive_whole_torn_or_not_at_all_and_in_any_order() {
    let mut outcomes = BTreeSet::new();
    let mut torn = false;
    for seed in SEEDS {
        let (disk, file) = prepared(seed);
        write(&*file, &[2; 3 * 4096], 0).unwrap();
        disk.power_loss();
        let bytes = read(&disk, "/f").expect("its name was synced");
        let pages: Vec<&[u8]> = bytes.chunks(4096).collect();
        assert!(
            bytes.chunks(512).all(|sector| sector == [1; 512] || sector == [2; 512]),
            "sectors are whole"
        );
        torn |= pages.iter().any(|page| page.contains(&1) && page.contains(&2));
        outcomes.insert(pages.iter().map(|page| page[0]).collect::<Vec<u8>>());
    }
    assert!(torn, "some page is torn");
    assert_eq!(outcomes.len(), 8, "every subset of the pages survives somewhere");
}

#[test]
fn an_unsynced_append_survives_with_any_length_and_its_lost_pages_are_zeros() {
    let (mut lengths, mut holes) = (BTreeSet::new(), 0);
    for seed in SEEDS {
        let (disk, file) = prepared(seed);
        write(&*file, &[2; 10_000], 3 * 4096).unwrap();
        disk.power_loss();
        let bytes = read(&disk, "/f").unwrap();
        assert_eq!(bytes[..3 * 4096], [1; 3 * 4096], "what was durable is not touched");
        assert!(bytes[3 * 4096..].iter().all(|byte| [0, 2].contains(byte)));
        holes += usize::from(bytes[3 * 4096..].contains(&0));
        lengths.insert(bytes.len());
    }
    assert!(lengths.contains(&(3 * 4096)) && lengths.contains(&(3 * 4096 + 10_000)) && lengths.len() > 10);
    assert!(holes > 0, "a length may survive without the bytes");
}

#[test]
fn an_earlier_version_of_a_page_may_be_the_one_that_survives() {
    let mut versions = BTreeSet::new();
    for seed in SEEDS {
        let (disk, file) = prepared(seed);
        for version in 2..30 {
            write(&*file, &[version; 4096], 0).unwrap();
        }
        disk.power_loss();
        versions.insert(read(&disk, "/f").unwrap()[0]);
    }
    assert!(versions.contains(&1) && versions.contains(&29) && versions.len() > 3, "{versions:?}");
}

#[test]
fn an_unsynced_truncation_happened_or_did_not() {
    let mut outcomes = BTreeSet::new();
    for seed in SEEDS {
        let (disk, file) = prepared(seed);
        file.set_len(5000).unwrap();
        write(&*file, &[2; 3000], 5000).unwrap();
        disk.power_loss();
        let bytes = read(&disk, "/f").unwrap();
        assert_eq!(bytes[..4096], [1; 4096]);
        match bytes.len() {
            12_288 => {
                assert_eq!(bytes[8192..], [1; 4096], "the third page was not touched");
                outcomes.insert(if bytes[4096..8192] == [1; 4096] {
                    "nothing"
                } else {
                    "page rewritten in place"
                });
            }
            5000 => drop(outcomes.insert("truncated")),
            8000 => drop(outcomes.insert("truncated and appended")),
            len => assert!((5000..8000).contains(&len), "{len}"),
        }
    }
    assert_eq!(outcomes.len(), 4, "{outcomes:?}");
}

#[test]
fn a_file_whose_directory_was_not_synced_may_vanish_with_all_its_synced_bytes() {
    let mut survived = 0;
    for seed in SEEDS {
        let disk = SimDisk::new(seed);
        let file = file(&disk, "/f");
        write(&*file, b"content", 0).unwrap();
        file.sync_data().unwrap();
        disk.power_loss();
        if let Some(content) = read(&disk, "/f") {
            assert_eq!(content, b"content", "the bytes were synced");
            survived += 1;
        }
    }
    assert!(0 < survived && survived < SEEDS.end, "{survived}");
}

#[test]
fn a_directory_vanishes_with_its_content_unless_its_parent_was_synced() {
    let disk = SimDisk::new(1);
    disk.create_dir_all(Path::new("/a/b")).unwrap();
    write(&*file(&disk, "/a/b/f"), b"x", 0).unwrap();
    file(&disk, "/a/b/f").sync_data().unwrap();
    disk.sync_dir(Path::new("/a/b")).unwrap();
    disk.sync_dir(Path::new("/a")).unwrap();
    let forgetful = disk.fork(2);
    forgetful.power_loss_with(Unsynced::Lost);
    assert_eq!(forgetful.files(), []);
    assert!(!forgetful.exists(Path::new("/a")).unwrap());
    disk.sync_dir(Path::new("/")).unwrap();
    disk.power_loss_with(Unsynced::Lost);
    assert_eq!(read(&disk, "/a/b/f"), Some(b"x".to_vec()));
}

#[test]
fn operations_on_one_name_survive_in_order_and_on_others_independently() {
    let mut outcomes = BTreeSet::new();
    for seed in SEEDS {
        let disk = SimDisk::new(seed);
        for name in ["/a", "/b"] {
            disk.create_dir_all(Path::new(name)).unwrap();
        }
        disk.rename(Path::new("/a"), Path::new("/c")).unwrap();
        disk.power_loss();
        let names: Vec<String> = disk.read_dir(Path::new("/")).unwrap().into_iter().map(|e| e.name).collect();
        outcomes.insert(names.join(""));
    }
    assert_eq!(outcomes, ["", "a", "ab", "b", "bc", "c"].map(String::from).into());
}

#[test]
fn a_name_given_away_and_taken_again_never_costs_the_first_file() {
    let mut outcomes = BTreeSet::new();
    for seed in SEEDS {
        let (disk, _) = prepared(seed);
        disk.rename(Path::new("/f"), Path::new("/g")).unwrap();
        file(&disk, "/f");
        disk.power_loss();
        outcomes.insert((read(&disk, "/f").map(|f| f.len()), read(&disk, "/g").map(|g| g.len())));
    }
    let whole = Some(3 * 4096);
    assert_eq!(outcomes, [(whole, None), (None, whole), (Some(0), whole)].into());
}

#[test]
fn syncing_a_directory_makes_a_rename_out_of_it_durable_in_both() {
    let (disk, _) = prepared(1);
    for dir in ["/a", "/b"] {
        disk.create_dir_all(Path::new(dir)).unwrap();
    }
    disk.sync_dir(Path::new("/")).unwrap();
    disk.rename(Path::new("/f"), Path::new("/a/f")).unwrap();
    disk.rename(Path::new("/a/f"), Path::new("/b/f")).unwrap();
    disk.sync_dir(Path::new("/b")).unwrap();
    disk.power_loss_with(Unsynced::Lost);
    assert_eq!(disk.files(), [(PathBuf::from("/b/f"), 3 * 4096)]);
}

#[test]
fn an_atomic_replacement_that_stops_at_any_operation_leaves_the_old_content_or_the_new() {
    let (old, new) = (vec![1; 9000], vec![2; 5000]);
    let mut seen = BTreeSet::new();
    for seed in 0..40 {
        for stop in 0..8 {
            let disk = SimDisk::new(seed);
            disk.write_file_atomically(Path::new("/f"), &old).unwrap();
            disk.set_crash_at_op(disk.op_count() + stop);
            let result = disk.write_file_atomically(Path::new("/f"), &new);
            // Create, cut, write, sync, rename, sync of the directory.
            assert_eq!(result.is_err(), stop < 6, "it has six operations");
            disk.power_loss();
            let content = read(&disk, "/f").expect("one of the two is there");
            assert!(content == old || content == new, "seed {seed}, stopped at {stop}");
            assert!(result.is_err() || content == new, "once it returned it lasts");
            seen.insert((stop, content == new));
        }
    }
    assert!(seen.contains(&(4, true)) && seen.contains(&(4, false)), "the rename itself is the moment");
}

#[test]
fn a_crash_of_the_process_loses_nothing_but_its_handles_and_locks() {
    let (disk, old) = prepared(1);
    write(&*old, b"not synced", 0).unwrap();
    let lock = disk.lock(Path::new("/lock")).unwrap();
    disk.crash();
    for result in [old.sync_data(), old.set_len(0), write(&*old, b"x", 0), old.read_exact_at(&mut [0], 0)] {
        assert!(is_crash(&result.unwrap_err()));
    }
    assert!(is_crash(&old.len().unwrap_err()));
    let new = disk.lock(Path::new("/lock")).expect("a dead process holds no lock");
    drop(lock);
    assert_eq!(
        disk.lock(Path::new("/lock")).unwrap_err().kind(),
        ErrorKind::WouldBlock,
        "the new one is held"
    );
    drop(new);
    assert!(read(&disk, "/f").unwrap().starts_with(b"not synced"));
    disk.power_loss_with(Unsynced::Lost);
    assert_eq!(read(&disk, "/f").unwrap(), [1; 3 * 4096]);
}

#[test]
fn a_failed_sync_marks_pages_clean_so_that_the_second_sync_lies() {
    let (mut lost, mut kept) = (0, 0);
    for seed in SEEDS {
        let (disk, file) = prepared(seed);
        write(&*file, &[2; 3 * 4096], 0).unwrap();
        disk.inject(SimFault::eio(SimOp::Sync).on("/f"));
        assert!(file.sync_data().is_err());
        file.sync_data().expect("the second one has nothing to write and says that all is well");
        assert_eq!(disk.faults_hit(), 1);
        assert_eq!(read(&disk, "/f").unwrap(), [2; 3 * 4096], "reads come from the page cache");
        disk.power_loss();
        match read(&disk, "/f").unwrap() == [2; 3 * 4096] {
            true => kept += 1,
            false => lost += 1,
        }
    }
    assert!(lost > 0 && kept > 0, "{lost} lost, {kept} kept");
}

#[test]
fn a_failed_sync_of_the_file_system_fails_every_file() {
    let survives = |seed| {
        let (disk, file) = prepared(seed);
        write(&*file, &[2; 3 * 4096], 0).unwrap();
        disk.inject(SimFault::eio(SimOp::SyncFilesystem));
        assert!(disk.sync_filesystem(Path::new("/")).is_err());
        disk.sync_filesystem(Path::new("/")).unwrap();
        disk.power_loss();
        read(&disk, "/f").unwrap() == [2; 3 * 4096]
    };
    assert!(!SEEDS.into_iter().all(survives), "the second one lied");
}

#[test]
fn faults_hit_the_operation_path_and_turn_that_they_name() {
    let disk = SimDisk::new(1);
    let (a, b) = (file(&disk, "/a"), file(&disk, "/b"));
    disk.inject(SimFault::eio(SimOp::Write).on("a").after(1));
    disk.inject(SimFault::enospc(SimOp::Allocate).always());
    write(&*a, b"1", 0).unwrap();
    write(&*b, b"1", 0).unwrap();
    a.sync_data().unwrap();
    let error = write(&*a, b"2", 0).unwrap_err();
    assert!(error.to_string().contains("/a") && !is_crash(&error), "{error}");
    write(&*a, b"3", 0).expect("once");
    for _ in 0..3 {
        assert_eq!(b.allocate(10).unwrap_err().kind(), ErrorKind::StorageFull);
    }
    disk.clear_faults();
    b.allocate(10).unwrap();
    disk.inject(SimFault::eio(SimOp::Read));
    assert!(a.read_exact_at(&mut [0], 0).is_err());
    assert_eq!(disk.faults_hit(), 5);
}

#[test]
fn a_full_disk_takes_what_fits_and_everything_again_when_space_returns() {
    let disk = SimDisk::new(1);
    disk.set_capacity(Some(10 * 4096));
    let (a, b) = (file(&disk, "/a"), file(&disk, "/b"));
    write(&*a, &[1; 6 * 4096], 0).unwrap();
    b.allocate(3 * 4096).unwrap();
    assert_eq!((disk.free_bytes(Path::new("/")).unwrap(), disk.used_bytes()), (4096, 9 * 4096));
    assert_eq!(b.allocate(5 * 4096).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(b.set_len(5 * 4096).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(write(&*a, &[2; 3 * 4096], 6 * 4096).unwrap_err().kind(), ErrorKind::StorageFull);
    assert_eq!(a.len().unwrap(), 7 * 4096, "a write that does not fit is done in part");
    write(&*b, &[3; 3 * 4096], 0).expect("what was allocated can be written");
    write(&*a, &[4; 4096], 0).expect("and what is there overwritten");
    disk.remove_file(Path::new("/a")).unwrap();
    assert_eq!(disk.free_bytes(Path::new("/")).unwrap(), 0, "an open file keeps its space");
    drop(a);
    assert_eq!(disk.free_bytes(Path::new("/")).unwrap(), 7 * 4096);
    b.set_len(0).unwrap();
    assert_eq!(disk.used_bytes(), 0);
}

#[test]
fn everything_after_the_crash_point_fails_until_the_next_life() {
    let disk = SimDisk::new(1);
    let script = |disk: &SimDisk| -> std::io::Result<()> {
        let root = Path::new("/");
        let file = disk.open(Path::new("/f"), OpenMode::ReadWriteCreate)?;
        write(&*file, b"x", 0)?;
        file.allocate(100)?;
        file.set_len(50)?;
        file.sync_data()?;
        disk.create_dir_all(Path::new("/d"))?;
        disk.rename(Path::new("/f"), Path::new("/d/f"))?;
        disk.sync_dir(root)?;
        disk.sync_filesystem(root)?;
        disk.remove_dir_all(Path::new("/d"))
    };
    script(&disk).unwrap();
    let operations = disk.op_count();
    assert_eq!(operations, 11);
    for stop in 0..operations {
        let disk = SimDisk::new(stop);
        disk.set_crash_at_op(stop);
        assert!(is_crash(&script(&disk).unwrap_err()), "stopped at {stop}");
        assert!(disk.is_crashed());
        assert!(is_crash(&disk.read_dir(Path::new("/")).unwrap_err()));
        assert!(is_crash(&disk.exists(Path::new("/f")).unwrap_err()));
        assert!(is_crash(&disk.open(Path::new("/g"), OpenMode::ReadWriteCreate).unwrap_err()));
        assert!(is_crash(&disk.write_file_atomically(Path::new("/h"), b"x").unwrap_err()));
        disk.crash();
        assert!(!disk.exists(Path::new("/g")).unwrap());
        let _ = disk.remove_dir_all(Path::new("/d"));
        script(&disk).expect("the next life starts with a working disk");
    }
}

#[test]
fn rot_flips_bits_in_what_is_read_and_in_what_survives() {
    let (disk, file) = prepared(1);
    disk.flip_bit(Path::new("/f"), 5000, 7).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 5000).unwrap();
    assert_eq!(byte, [0x81]);
    assert_eq!(disk.flip_bit(Path::new("/f"), 3 * 4096, 0).unwrap_err().kind(), ErrorKind::InvalidInput);
    disk.power_loss();
    let mut expected = vec![1; 3 * 4096];
    expected[5000] = 0x81;
    for (path, offset, bit) in disk.rot("f", 20) {
        assert_eq!(path, Path::new("/f"));
        expected[offset as usize] ^= 1 << bit;
    }
    assert_eq!(read(&disk, "/f").unwrap(), expected);
    assert_ne!(expected.iter().filter(|byte| **byte != 1).count(), 1);
    assert_eq!(disk.rot("none", 3), []);
}

#[test]
fn latency_adds_up_until_the_host_takes_it() {
    let (disk, file) = prepared(1);
    let ms = Duration::from_millis;
    disk.set_latency(SimLatency { operation: ms(1), sync: ms(10), kib: ms(2) });
    assert_eq!(disk.take_latency(), ms(0));
    write(&*file, &[0; 4096], 0).unwrap();
    file.sync_data().unwrap();
    file.read_exact_at(&mut [0; 1024], 0).unwrap();
    assert_eq!(disk.take_latency(), ms(9 + 11 + 3));
    assert_eq!(disk.take_latency(), ms(0));
}

#[test]
fn operations_are_counted_and_the_dump_says_what_is_not_synced() {
    let (disk, file) = prepared(1);
    write(&*file, b"x", 3 * 4096).unwrap();
    self::file(&disk, "/g");
    let counters = disk.counters();
    assert_eq!((counters.writes, counters.bytes_written), (2, 3 * 4096 + 1));
    assert_eq!((counters.syncs, counters.dir_syncs, counters.creates), (1, 1, 2));
    assert_eq!(disk.dump(), "/f 12289 12288 data-unsynced directory-unsynced\n/g 0 0 directory-unsynced\n");
    assert_eq!(disk.durable_files(), [(PathBuf::from("/f"), 3 * 4096)]);
    assert_eq!(disk.read_durable(Path::new("/f")), Some(vec![1; 3 * 4096]));
    assert_eq!(disk.read_durable(Path::new("/g")), None);
    disk.sync_filesystem(Path::new("/")).unwrap();
    assert_eq!(disk.dump(), "/f 12289 12289\n/g 0 0\n");
}

#[test]
fn a_wiped_disk_is_empty() {
    let (disk, file) = prepared(1);
    disk.wipe();
    assert!(is_crash(&file.len().unwrap_err()));
    assert_eq!((disk.files(), disk.durable_files(), disk.used_bytes()), (vec![], vec![], 0));
    disk.write_file_atomically(Path::new("/f"), b"new").unwrap();
    assert_eq!(read(&disk, "/f").unwrap(), b"new");
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, u16, u8),
    SetLen(u64),
    Sync,
    FailSync,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0..30_000u64, 1..9000u16, 1..=255u8).prop_map(|(at, len, byte)| Step::Write(at, len, byte)),
        2 => (0..30_000u64).prop_map(Step::SetLen),
        2 => Just(Step::Sync),
    ];
    proptest::collection::vec(step, 1..25)
}

/// What reads must see, what is durable, and which bytes were touched since.
#[derive(Default)]
struct Model {
    current: Vec<u8>,
    durable: Vec<u8>,
    /// Bytes of `durable` that no operation has touched since.
    untouched: Vec<bool>,
    lengths: (usize, usize),
}

fn play(disk: &SimDisk, steps: &[Step]) -> Model {
    let file = file(disk, "/f");
    disk.sync_dir(Path::new("/")).unwrap();
    let mut model = Model::default();
    for step in steps {
        match *step {
            Step::Write(at, len, byte) => {
                write(&*file, &vec![byte; len.into()], at).unwrap();
                let (at, end) = (at as usize, at as usize + usize::from(len));
                model.current.resize(model.current.len().max(end), 0);
                model.current[at..end].fill(byte);
                // Only whole sectors are written.
                let touched = model.untouched.len().min(at / 512 * 512)
                    ..model.untouched.len().min(end.next_multiple_of(512));
                model.untouched[touched].fill(false);
            }
            Step::SetLen(len) => {
                file.set_len(len).unwrap();
                model.current.resize(len as usize, 0);
                let kept = model.untouched.len().min(len as usize / 512 * 512);
                model.untouched[kept..].fill(false);
            }
            Step::Sync => {
                file.sync_data().unwrap();
                model.durable = model.current.clone();
                model.untouched = vec![true; model.durable.len()];
                model.lengths = (model.durable.len(), model.durable.len());
            }
            Step::FailSync => {
                disk.inject(SimFault::eio(SimOp::Sync));
                file.sync_data().unwrap_err();
            }
        }
        let len = model.current.len();
        model.lengths = (model.lengths.0.min(len), model.lengths.1.max(len));
    }
    assert_eq!(read(disk, "/f").unwrap(), model.current);
    model
}

proptest! {
    #[test]
    fn the_extreme_power_losses_leave_exactly_the_synced_or_the_current_bytes(steps in steps(), seed: u64) {
        let disk = SimDisk::new(seed);
        let model = play(&disk, &steps);
        prop_assert_eq!(disk.read_durable(Path::new("/f")).unwrap(), model.durable.clone());
        let (lost, kept) = (disk.fork(1), disk.fork(2));
        lost.power_loss_with(Unsynced::Lost);
        kept.power_loss_with(Unsynced::Kept);
        prop_assert_eq!(read(&lost, "/f").unwrap(), model.durable);
        prop_assert_eq!(read(&kept, "/f").unwrap(), model.current.clone());
        prop_assert_eq!(read(&disk, "/f").unwrap(), model.current, "a fork is another disk");
    }

    #[test]
    fn no_power_loss_touches_synced_bytes_that_nobody_wrote_since(steps in steps(), seed: u64) {
        let disk = SimDisk::new(seed);
        let model = play(&disk, &steps);
        for seed in 0..8 {
            let disk = disk.fork(seed);
            disk.power_loss();
            let left = read(&disk, "/f").unwrap();
            prop_assert!((model.lengths.0..=model.lengths.1).contains(&left.len()));
            for (i, untouched) in model.untouched.iter().enumerate() {
                prop_assert!(!untouched || left[i] == model.durable[i], "byte {} of {}", i, left.len());
            }
        }
    }

    #[test]
    fn the_same_seed_leaves_the_same_bytes(steps in steps(), seed: u64, fail: bool) {
        let mut steps = steps;
        if fail {
            steps.insert(steps.len() / 2, Step::FailSync);
        }
        let left = [(); 2].map(|()| {
            let disk = SimDisk::new(seed);
            play(&disk, &steps);
            disk.power_loss();
            (read(&disk, "/f"), disk.dump())
        });
        prop_assert_eq!(&left[0], &left[1]);
    }
}
