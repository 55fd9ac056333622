//! One contract, checked on both disks. What is said about durability is checked on the simulated disk only
//! (`disk_power_loss.rs`); of the real one it can only be seen that syncing succeeds.

use proptest::prelude::*;
use std::io::{self, ErrorKind, IoSlice};
use std::path::Path;
use std::sync::Arc;
use strandline_storage::disk::{
    BLOCK, BlockBuffer, Disk, DiskFile, OpenMode, RealDisk, SimDisk, TEMPORARY_SUFFIX,
};

/// Runs each function as a test on each disk, with an empty directory.
macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod real {
            $(#[test] fn $name() {
                let dir = tempfile::tempdir().unwrap();
                super::$name(&super::RealDisk::new(), dir.path());
            })*
        }
        mod sim {
            use super::Disk;
            $(#[test] fn $name() {
                let (disk, dir) = (super::SimDisk::new(1), std::path::Path::new("/data/dir"));
                disk.create_dir_all(dir).unwrap();
                super::$name(&disk, dir);
            })*
        }
    };
}

contract! {
    a_file_is_opened_as_its_mode_says,
    bytes_are_read_where_they_were_written,
    more_buffers_than_one_system_call_takes_are_written_in_order,
    blocks_that_are_written_directly_are_read_through_another_handle,
    what_is_no_whole_block_is_not_written_directly,
    reads_end_at_the_end_of_the_file,
    a_file_that_is_cut_and_extended_reads_as_zeros_there,
    a_handle_for_reading_refuses_to_change_the_file,
    allocating_changes_neither_length_nor_content,
    advice_changes_nothing_that_can_be_seen,
    a_small_file_is_read_whole_and_a_longer_one_refused,
    a_small_file_is_replaced_whole_and_leaves_no_temporary_file,
    a_directory_lists_its_entries_by_name,
    directories_are_made_with_their_parents_and_removed_with_their_content,
    a_rename_replaces_the_target,
    a_directory_is_renamed_with_what_it_holds,
    a_handle_outlives_the_name_of_its_file,
    what_is_missing_is_not_found,
    a_file_is_no_directory_and_a_directory_no_file,
    everything_that_exists_can_be_synced,
    a_lock_is_held_by_one_until_it_is_dropped,
    free_space_is_known,
    handles_are_shared_between_threads,
}

fn write(file: &dyn DiskFile, bytes: &[u8], offset: u64) {
    file.write_all_at(&[IoSlice::new(bytes)], offset).unwrap();
}

fn content(file: &dyn DiskFile) -> Vec<u8> {
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn put(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Arc<dyn DiskFile> {
    let file = disk.open(path, OpenMode::ReadWriteCreate).unwrap();
    write(&*file, bytes, 0);
    file
}

fn kind<T>(result: io::Result<T>) -> ErrorKind {
    result.err().expect("this must fail").kind()
}

fn names(disk: &dyn Disk, dir: &Path) -> Vec<String> {
    disk.read_dir(dir).unwrap().into_iter().map(|entry| entry.name).collect()
}

fn a_file_is_opened_as_its_mode_says(disk: &dyn Disk, dir: &Path) {
    let path = dir.join("file");
    assert_eq!(kind(disk.open(&path, OpenMode::Read)), ErrorKind::NotFound);
    assert_eq!(kind(disk.open(&path, OpenMode::ReadWrite)), ErrorKind::NotFound);
    assert!(!disk.exists(&path).unwrap());
    write(&*disk.open(&path, OpenMode::CreateNew).unwrap(), b"first", 0);
    assert!(disk.exists(&path).unwrap());
    assert_eq!(kind(disk.open(&path, OpenMode::CreateNew)), ErrorKind::AlreadyExists);
    for mode in [OpenMode::Read, OpenMode::ReadWrite, OpenMode::ReadWriteCreate] {
        assert_eq!(content(&*disk.open(&path, mode).unwrap()), b"first", "{mode:?} keeps the content");
    }
}

fn bytes_are_read_where_they_were_written(disk: &dyn Disk, dir: &Path) {
    let file = disk.open(&dir.join("file"), OpenMode::CreateNew).unwrap();
    assert!(file.is_empty().unwrap());
    let bufs = [b"ab".as_slice(), b"", b"cde"].map(IoSlice::new);
    file.write_all_at(&bufs, 3).unwrap();
    assert_eq!(content(&*file), b"\0\0\0abcde");
    write(&*file, b"XY", 4);
    write(&*file, b"far", 10_000);
    write(&*file, b"", 20_000);
    assert_eq!(file.len().unwrap(), 10_003);
    let bytes = content(&*file);
    assert_eq!(&bytes[..9], b"\0\0\0aXYde\0");
    assert!(bytes[9..10_000].iter().all(|byte| *byte == 0));
    assert_eq!(&bytes[10_000..], b"far");
    // Across the boundaries of pages.
    let long: Vec<u8> = (0..9000u32).map(|i| (i % 251) as u8).collect();
    write(&*file, &long, 4090);
    let mut read = vec![0; 9000];
    file.read_exact_at(&mut read, 4090).unwrap();
    assert_eq!(read, long);
}

fn more_buffers_than_one_system_call_takes_are_written_in_order(disk: &dyn Disk, dir: &Path) {
    let file = disk.open(&dir.join("file"), OpenMode::CreateNew).unwrap();
    let numbers: Vec<[u8; 4]> = (0..5000u32).map(u32::to_be_bytes).collect();
    let bufs: Vec<IoSlice<'_>> = numbers.iter().map(|number| IoSlice::new(number)).collect();
    file.write_all_at(&bufs, 7).unwrap();
    assert_eq!(content(&*file)[7..], numbers.concat());
}

fn blocks_that_are_written_directly_are_read_through_another_handle(disk: &dyn Disk, dir: &Path) {
    let path = dir.join("blocks");
    let through_the_cache = disk.open(&path, OpenMode::ReadWriteCreate).unwrap();
    write(&*through_the_cache, &[1; 5 * BLOCK], 0);
    let mut expected = content(&*through_the_cache);
    let direct = disk.open_direct(&path, OpenMode::ReadWrite).unwrap();
    let mut buffer = BlockBuffer::default();
    // Over what is there, at its end, and behind a gap.
    for (n, block) in [(2u8, 1), (3, 4), (4, 9)] {
        let bytes = buffer.bytes(2 * BLOCK);
        bytes.fill(n);
        write(&*direct, bytes, (block * BLOCK) as u64);
        expected.resize(expected.len().max((block + 2) * BLOCK), 0);
        expected[block * BLOCK..][..2 * BLOCK].fill(n);
        assert!(content(&*through_the_cache) == expected);
    }
    direct.sync_data().unwrap();
    assert!(content(&*disk.open(&path, OpenMode::Read).unwrap()) == expected);
    let missing = disk.open_direct(&dir.join("missing"), OpenMode::ReadWrite).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

fn what_is_no_whole_block_is_not_written_directly(disk: &dyn Disk, dir: &Path) {
    let file = disk.open_direct(&dir.join("blocks"), OpenMode::ReadWriteCreate).unwrap();
    let mut buffer = BlockBuffer::default();
    let bytes = buffer.bytes(2 * BLOCK);
    for (from, to, offset) in [(0, 100, 0), (0, BLOCK, 100), (512, 512 + BLOCK, 0)] {
        let bytes = &bytes[from..to];
        let written = std::panic::AssertUnwindSafe(|| file.write_all_at(&[IoSlice::new(bytes)], offset));
        assert!(std::panic::catch_unwind(written).is_err(), "{from}..{to} at {offset}");
    }
    assert_eq!(file.len().unwrap(), 0);
}

fn reads_end_at_the_end_of_the_file(disk: &dyn Disk, dir: &Path) {
    let file = put(disk, &dir.join("file"), b"0123456789");
    let mut buf = [b'-'; 4];
    assert_eq!(file.read_at(&mut buf, 4).unwrap(), 4);
    assert_eq!((file.read_at(&mut buf, 8).unwrap(), &buf), (2, b"8967"));
    assert_eq!(file.read_at(&mut buf, 10).unwrap(), 0);
    assert_eq!(file.read_at(&mut buf, 1 << 40).unwrap(), 0);
    assert_eq!(file.read_at(&mut [], 3).unwrap(), 0);
    file.read_exact_at(&mut buf, 6).unwrap();
    assert_eq!(kind(file.read_exact_at(&mut buf, 7)), ErrorKind::UnexpectedEof);
    file.read_exact_at(&mut [], 10).unwrap();
}

fn a_file_that_is_cut_and_extended_reads_as_zeros_there(disk: &dyn Disk, dir: &Path) {
    let file = put(disk, &dir.join("file"), &[7; 10_000]);
    file.set_len(5000).unwrap();
    assert_eq!(file.len().unwrap(), 5000);
    file.set_len(9000).unwrap();
    let bytes = content(&*file);
    assert!(bytes[..5000].iter().all(|byte| *byte == 7));
    assert!(bytes[5000..].iter().all(|byte| *byte == 0) && bytes.len() == 9000);
    file.set_len(0).unwrap();
    write(&*file, b"x", 8191);
    let bytes = content(&*file);
    assert!(bytes[..8191].iter().all(|byte| *byte == 0) && bytes.len() == 8192);
}

fn a_handle_for_reading_refuses_to_change_the_file(disk: &dyn Disk, dir: &Path) {
    put(disk, &dir.join("file"), b"content");
    let file = disk.open(&dir.join("file"), OpenMode::Read).unwrap();
    assert!(file.write_all_at(&[IoSlice::new(b"x")], 0).is_err());
    assert!(file.set_len(0).is_err());
    assert!(file.allocate(100).is_err());
    file.sync_data().expect("but it can be synced");
    assert_eq!(content(&*file), b"content");
}

fn allocating_changes_neither_length_nor_content(disk: &dyn Disk, dir: &Path) {
    let file = put(disk, &dir.join("file"), b"content");
    file.allocate(100_000).unwrap();
    file.allocate(10).unwrap();
    file.allocate(0).unwrap();
    assert_eq!(content(&*file), b"content");
    write(&*file, b"more", 90_000);
    assert_eq!(file.len().unwrap(), 90_004);
}

fn advice_changes_nothing_that_can_be_seen(disk: &dyn Disk, dir: &Path) {
    let file = put(disk, &dir.join("file"), &[9; 20_000]);
    file.start_write_back(0, 8192);
    file.start_write_back(0, 0);
    file.advise_dont_need(0, 20_000);
    file.sync_data().unwrap();
    file.advise_dont_need(0, 20_000);
    assert_eq!(content(&*file), [9; 20_000]);
}

fn a_small_file_is_read_whole_and_a_longer_one_refused(disk: &dyn Disk, dir: &Path) {
    let path = dir.join("file");
    assert_eq!(kind(disk.read_file(&path, 10)), ErrorKind::NotFound);
    put(disk, &path, b"0123456789");
    assert_eq!(disk.read_file(&path, 10).unwrap(), b"0123456789");
    assert_eq!(kind(disk.read_file(&path, 9)), ErrorKind::InvalidData);
}

fn a_small_file_is_replaced_whole_and_leaves_no_temporary_file(disk: &dyn Disk, dir: &Path) {
    let path = dir.join("file");
    disk.write_file_atomically(&path, b"a long first content").unwrap();
    assert_eq!(disk.read_file(&path, 100).unwrap(), b"a long first content");
    // What a crash left behind is no part of the next content.
    put(
        disk,
        &dir.join(format!("file{TEMPORARY_SUFFIX}")),
        b"the remainder of a crash, longer than the rest",
    );
    disk.write_file_atomically(&path, b"second").unwrap();
    assert_eq!(disk.read_file(&path, 100).unwrap(), b"second");
    disk.write_file_atomically(&path, b"").unwrap();
    assert_eq!(disk.read_file(&path, 100).unwrap(), b"");
    assert_eq!(names(disk, dir), ["file"]);
    assert_eq!(kind(disk.write_file_atomically(&dir.join("none/file"), b"x")), ErrorKind::NotFound);
}

fn a_directory_lists_its_entries_by_name(disk: &dyn Disk, dir: &Path) {
    assert_eq!(disk.read_dir(dir).unwrap(), []);
    for name in ["b", "a.log", "c"] {
        put(disk, &dir.join(name), name.as_bytes());
    }
    disk.create_dir_all(&dir.join("bb/inner")).unwrap();
    let entries = disk.read_dir(dir).unwrap();
    let seen: Vec<_> = entries.iter().map(|e| (e.name.as_str(), e.is_dir, e.len)).collect();
    assert_eq!(seen, [("a.log", false, 5), ("b", false, 1), ("bb", true, 0), ("c", false, 1)]);
    assert!(entries.iter().all(|entry| entry.path == dir.join(&entry.name)));
}

fn directories_are_made_with_their_parents_and_removed_with_their_content(disk: &dyn Disk, dir: &Path) {
    let deep = dir.join("a/b/c");
    disk.create_dir_all(&deep).unwrap();
    disk.create_dir_all(&deep).expect("making it again changes nothing");
    put(disk, &deep.join("file"), b"x");
    put(disk, &dir.join("a/file"), b"y");
    disk.remove_dir_all(&dir.join("a")).unwrap();
    assert!(!disk.exists(&dir.join("a/b")).unwrap());
    assert_eq!(names(disk, dir), Vec::<String>::new());
    disk.create_dir_all(&deep).unwrap();
    assert_eq!(names(disk, &deep), Vec::<String>::new());
}

fn a_rename_replaces_the_target(disk: &dyn Disk, dir: &Path) {
    let (a, b, c) = (dir.join("a"), dir.join("b"), dir.join("c"));
    put(disk, &a, b"from a");
    put(disk, &b, b"from b");
    disk.rename(&a, &b).unwrap();
    assert_eq!(disk.read_file(&b, 100).unwrap(), b"from a");
    disk.rename(&b, &c).unwrap();
    disk.rename(&c, &c).expect("to itself is no change");
    assert_eq!(names(disk, dir), ["c"]);
    disk.create_dir_all(&dir.join("sub")).unwrap();
    disk.rename(&c, &dir.join("sub/moved")).unwrap();
    assert_eq!((names(disk, dir), names(disk, &dir.join("sub"))), (vec!["sub".into()], vec!["moved".into()]));
}

fn a_directory_is_renamed_with_what_it_holds(disk: &dyn Disk, dir: &Path) {
    disk.create_dir_all(&dir.join("a/inner")).unwrap();
    let file = put(disk, &dir.join("a/inner/file"), b"content");
    disk.create_dir_all(&dir.join("empty")).unwrap();
    disk.create_dir_all(&dir.join("full/x")).unwrap();
    disk.rename(&dir.join("a"), &dir.join("empty")).unwrap();
    write(&*file, b"C", 0);
    assert_eq!(disk.read_file(&dir.join("empty/inner/file"), 100).unwrap(), b"Content");
    assert!(!disk.exists(&dir.join("a")).unwrap());
    assert_eq!(kind(disk.rename(&dir.join("empty"), &dir.join("full"))), ErrorKind::DirectoryNotEmpty);
    assert_eq!(kind(disk.rename(&dir.join("empty"), &dir.join("empty/inner/a"))), ErrorKind::InvalidInput);
}

fn a_handle_outlives_the_name_of_its_file(disk: &dyn Disk, dir: &Path) {
    let (a, b) = (dir.join("a"), dir.join("b"));
    let (removed, replaced) = (put(disk, &a, b"removed"), put(disk, &b, b"replaced"));
    disk.remove_file(&a).unwrap();
    put(disk, &a, b"new");
    disk.rename(&a, &b).unwrap();
    write(&*removed, b"R", 0);
    removed.sync_data().unwrap();
    assert_eq!((content(&*removed), content(&*replaced)), (b"Removed".to_vec(), b"replaced".to_vec()));
    assert_eq!(disk.read_file(&b, 100).unwrap(), b"new");
}

fn what_is_missing_is_not_found(disk: &dyn Disk, dir: &Path) {
    let none = dir.join("none");
    assert_eq!(kind(disk.read_dir(&none)), ErrorKind::NotFound);
    assert_eq!(kind(disk.remove_file(&none)), ErrorKind::NotFound);
    assert_eq!(kind(disk.remove_dir_all(&none)), ErrorKind::NotFound);
    assert_eq!(kind(disk.rename(&none, &dir.join("b"))), ErrorKind::NotFound);
    assert_eq!(kind(disk.sync_dir(&none)), ErrorKind::NotFound);
    assert_eq!(kind(disk.sync_filesystem(&none)), ErrorKind::NotFound);
    assert_eq!(kind(disk.free_bytes(&none)), ErrorKind::NotFound);
    assert_eq!(kind(disk.lock(&none.join("lock"))), ErrorKind::NotFound);
    assert_eq!(kind(disk.open(&none.join("file"), OpenMode::ReadWriteCreate)), ErrorKind::NotFound);
    put(disk, &dir.join("file"), b"");
    assert_eq!(kind(disk.rename(&dir.join("file"), &none.join("file"))), ErrorKind::NotFound);
}

fn a_file_is_no_directory_and_a_directory_no_file(disk: &dyn Disk, dir: &Path) {
    let (file, sub) = (dir.join("file"), dir.join("sub"));
    put(disk, &file, b"x");
    disk.create_dir_all(&sub).unwrap();
    assert_eq!(kind(disk.open(&file.join("x"), OpenMode::ReadWriteCreate)), ErrorKind::NotADirectory);
    assert!(!disk.exists(&file.join("x")).unwrap());
    assert_eq!(kind(disk.read_dir(&file)), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.remove_dir_all(&file)), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.create_dir_all(&file)), ErrorKind::AlreadyExists);
    assert_eq!(kind(disk.create_dir_all(&file.join("x"))), ErrorKind::NotADirectory);
    assert_eq!(kind(disk.open(&sub, OpenMode::Read)), ErrorKind::IsADirectory);
    assert_eq!(kind(disk.open(&sub, OpenMode::ReadWriteCreate)), ErrorKind::IsADirectory);
    assert_eq!(kind(disk.read_file(&sub, 10)), ErrorKind::IsADirectory);
    assert_eq!(kind(disk.remove_file(&sub)), ErrorKind::IsADirectory);
    assert_eq!(kind(disk.rename(&file, &sub)), ErrorKind::IsADirectory);
    assert_eq!(kind(disk.rename(&sub, &file)), ErrorKind::NotADirectory);
}

fn everything_that_exists_can_be_synced(disk: &dyn Disk, dir: &Path) {
    let file = put(disk, &dir.join("file"), &[1; 5000]);
    file.sync_data().unwrap();
    file.sync_data().expect("also with nothing to write");
    disk.sync_dir(dir).unwrap();
    disk.sync_filesystem(dir).unwrap();
    disk.sync_filesystem(&dir.join("file")).unwrap();
}

fn a_lock_is_held_by_one_until_it_is_dropped(disk: &dyn Disk, dir: &Path) {
    let path = dir.join("lock");
    let lock = disk.lock(&path).unwrap();
    assert_eq!(kind(disk.lock(&path)), ErrorKind::WouldBlock);
    disk.lock(&dir.join("other")).expect("another file is another lock");
    disk.open(&path, OpenMode::ReadWrite).expect("a lock keeps nobody from opening the file");
    drop(lock);
    disk.lock(&path).expect("it is free again");
    assert!(disk.exists(&path).unwrap());
}

fn free_space_is_known(disk: &dyn Disk, dir: &Path) {
    assert!(disk.free_bytes(dir).unwrap() > 0);
}

fn handles_are_shared_between_threads(disk: &dyn Disk, dir: &Path) {
    let file = disk.open(&dir.join("file"), OpenMode::CreateNew).unwrap();
    std::thread::scope(|scope| {
        for worker in 0..4u8 {
            let file = &file;
            scope.spawn(move || {
                for i in 0..50 {
                    write(&**file, &[worker + 1; 100], (i * 4 + u64::from(worker)) * 100);
                }
            });
        }
    });
    let bytes = content(&*file);
    assert_eq!(bytes.len(), 20_000);
    assert!(bytes.chunks(100).enumerate().all(|(i, part)| part == [(i % 4) as u8 + 1; 100]));
}

#[test]
fn errors_name_the_operation_and_the_path() {
    let dir = tempfile::tempdir().unwrap();
    let sim = SimDisk::new(1);
    sim.create_dir_all(dir.path()).unwrap();
    for disk in [&RealDisk::new() as &dyn Disk, &sim] {
        let error = disk.open(&dir.path().join("missing"), OpenMode::Read).unwrap_err().to_string();
        assert!(error.starts_with("cannot open ") && error.contains("missing: "), "{error}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(u8, u8, u16, u16),
    SetLen(u8, u16),
    MakeDir(u8),
    Rename(u8, u8),
    Remove(u8),
    RemoveDir(u8),
    Replace(u8, u8),
}

/// Few names, so that steps meet: files and directories at the same paths, one below another.
const NAMES: [&str; 6] = ["a", "b", "a/x", "b/x", "a/x/y", "c"];

fn step() -> impl Strategy<Value = Step> {
    let name = || 0..NAMES.len() as u8;
    prop_oneof![
        (name(), any::<u8>(), 0..10_000u16, 0..6000u16)
            .prop_map(|(f, b, at, len)| Step::Write(f, b, at, len)),
        (name(), 0..12_000u16).prop_map(|(f, len)| Step::SetLen(f, len)),
        name().prop_map(Step::MakeDir),
        (name(), name()).prop_map(|(f, t)| Step::Rename(f, t)),
        name().prop_map(Step::Remove),
        name().prop_map(Step::RemoveDir),
        (name(), any::<u8>()).prop_map(|(f, b)| Step::Replace(f, b)),
    ]
}

fn apply(disk: &dyn Disk, root: &Path, step: &Step) -> Result<(), ErrorKind> {
    let path = |i: &u8| root.join(NAMES[*i as usize]);
    let open = |i: &u8| disk.open(&path(i), OpenMode::ReadWriteCreate);
    match step {
        Step::Write(f, byte, at, len) => {
            open(f).and_then(|f| f.write_all_at(&[IoSlice::new(&vec![*byte; *len as usize])], (*at).into()))
        }
        Step::SetLen(f, len) => open(f).and_then(|f| f.set_len((*len).into())),
        Step::MakeDir(f) => disk.create_dir_all(&path(f)),
        Step::Rename(from, to) => disk.rename(&path(from), &path(to)),
        Step::Remove(f) => disk.remove_file(&path(f)),
        Step::RemoveDir(f) => disk.remove_dir_all(&path(f)),
        Step::Replace(f, byte) => disk.write_file_atomically(&path(f), &[*byte; 100]),
    }
    .map_err(|error| error.kind())
}

/// Every path below `dir` with its content.
fn tree(disk: &dyn Disk, root: &Path, dir: &Path) -> Vec<(String, Option<Vec<u8>>)> {
    let mut all = Vec::new();
    for entry in disk.read_dir(dir).unwrap() {
        let name = entry.path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        let content = (!entry.is_dir).then(|| disk.read_file(&entry.path, 1 << 20).unwrap());
        assert_eq!(entry.len, content.as_ref().map_or(0, Vec::len) as u64);
        all.push((name, content));
        if entry.is_dir {
            all.extend(tree(disk, root, &entry.path));
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn both_disks_do_the_same(steps in proptest::collection::vec(step(), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let sim = SimDisk::new(3);
        sim.create_dir_all(dir.path()).unwrap();
        for step in &steps {
            let (real, simulated) = (apply(&RealDisk::new(), dir.path(), step), apply(&sim, dir.path(), step));
            prop_assert_eq!(real, simulated, "{:?}", step);
        }
        prop_assert_eq!(tree(&RealDisk::new(), dir.path(), dir.path()), tree(&sim, dir.path(), dir.path()));
    }
}
