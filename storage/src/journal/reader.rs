//! Reads the journal at a start: finds its groups, tells a torn tail from damage.
//!
//! A group is written only after the one before it is durable. So whatever groups are found, all before the
//! highest one were whole once: one that is missing or unreadable is damage. Only the highest may be torn,
//! and nothing in it was acknowledged then: it is cut.

use super::files::{JOURNAL, file_name, parse_file_name};
use super::format::{self, BLOCK, Entry, GROUP_HEADER_BYTES, GroupHeader, Op, TableEntry};
use crate::disk::{DirEntry, Disk, DiskFile, OpenMode};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use strandline_record::crc32c;
use uuid::Uuid;

/// Read at once while groups are searched.
const SCAN_BYTES: usize = 1 << 20;

#[derive(Clone, Debug)]
struct GroupRef {
    /// Of its file.
    id: u32,
    file: Arc<dyn DiskFile>,
    position: u64,
    header: GroupHeader,
}

/// A journal file as it was found.
#[derive(Clone, Copy, Debug)]
pub struct FoundFile {
    pub id: u32,
    pub len: u64,
    /// Of the newest group in it that replay needs.
    pub needed: Option<u64>,
}

/// The groups of the journal that replay needs.
#[derive(Debug)]
pub struct JournalScan {
    groups: BTreeMap<u64, GroupRef>,
    pub files: Vec<FoundFile>,
}

/// One entry as it was read; `intact` is false when its payload is damaged.
#[derive(Debug)]
pub struct ReadEntry {
    pub entry: Entry,
    pub intact: bool,
}

/// Lists the journal's files without reading them.
pub fn list(disk: &dyn Disk, root: &Path) -> io::Result<Vec<FoundFile>> {
    let entries = disk.read_dir(&root.join(JOURNAL))?;
    let found = |e: &DirEntry| Some(FoundFile { id: parse_file_name(&e.name)?, len: e.len, needed: None });
    Ok(entries.iter().filter_map(found).collect())
}

/// Finds every group of generation `from_generation` or later.
pub fn scan(disk: &dyn Disk, root: &Path, directory: Uuid, from_generation: u64) -> io::Result<JournalScan> {
    let mut scan = JournalScan { groups: BTreeMap::new(), files: list(disk, root)? };
    for found in &mut scan.files {
        let file = disk.open(&path(root, found.id), OpenMode::Read)?;
        found.needed = scan_file(&file, *found, directory, from_generation, &mut scan.groups)?;
        file.advise_dont_need(0, found.len);
    }
    Ok(scan)
}

fn path(root: &Path, id: u32) -> PathBuf {
    root.join(JOURNAL).join(file_name(id))
}

fn read_full(file: &dyn DiskFile, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

fn scan_file(
    file: &Arc<dyn DiskFile>,
    FoundFile { id, len, .. }: FoundFile,
    directory: Uuid,
    from_generation: u64,
    groups: &mut BTreeMap<u64, GroupRef>,
) -> io::Result<Option<u64>> {
    let mut needed = None;
    let mut buffer = vec![0; SCAN_BYTES.min(len as usize)];
    let (mut buffered_at, mut buffered) = (0, 0);
    let mut position = 0;
    while position + GROUP_HEADER_BYTES as u64 <= len {
        let within =
            position >= buffered_at && position + GROUP_HEADER_BYTES as u64 <= buffered_at + buffered as u64;
        if !within {
            buffered = read_full(&**file, &mut buffer, position)?;
            buffered_at = position;
            if buffered < GROUP_HEADER_BYTES {
                break;
            }
        }
        let at = (position - buffered_at) as usize;
        let head: &[u8; GROUP_HEADER_BYTES] =
            buffer[at..at + GROUP_HEADER_BYTES].try_into().expect("a header was sliced");
        let header = format::parse_header(head, directory);
        match header.filter(|header| position + header.size() <= padded_len(len)) {
            Some(header) if read_table(&**file, position, &header)?.is_some() => {
                if position == 0 && header.generation < from_generation {
                    // A use of a file begins at its start: this one was over before the checkpoint.
                    return Ok(None);
                }
                if header.generation >= from_generation {
                    needed = needed.max(Some(header.generation));
                    let group = GroupRef { id, file: file.clone(), position, header };
                    // The number of a torn group was used again by the process after it.
                    let newest = groups.entry(header.number).or_insert_with(|| group.clone());
                    if newest.header.generation < header.generation {
                        *newest = group;
                    }
                }
                position += header.size();
            }
            _ => position += BLOCK as u64,
        }
    }
    Ok(needed)
}

/// The last group of a file that was cut by a crash may miss its padding.
fn padded_len(len: u64) -> u64 {
    format::padded(len)
}

fn read_table(
    file: &dyn DiskFile,
    position: u64,
    header: &GroupHeader,
) -> io::Result<Option<Vec<TableEntry>>> {
    let mut head = vec![0; GROUP_HEADER_BYTES + header.table_bytes()];
    if read_full(file, &mut head, position)? < head.len() {
        return Ok(None);
    }
    Ok(format::decode_table(header, &head))
}

impl JournalScan {
    /// After a clean stop there is nothing to read.
    pub fn of_clean(files: Vec<FoundFile>) -> Self {
        JournalScan { groups: BTreeMap::new(), files }
    }

    /// The newest generation of which something was found.
    pub fn generation(&self) -> Option<u64> {
        self.files.iter().filter_map(|file| file.needed).max()
    }

    /// Makes what was read durable. The process before may have ended because it could not sync the highest group: that
    /// is in the page cache only then, and counts as written, so that another sync would do nothing. Hence it is
    /// written again first; all before it were durable when it was written.
    pub fn sync(&self, disk: &dyn Disk, root: &Path) -> io::Result<()> {
        if let Some(highest) = self.groups.values().next_back() {
            let file = disk.open(&path(root, highest.id), OpenMode::ReadWrite)?;
            let mut bytes =
                vec![0; usize::try_from(highest.header.size()).expect("a group fits into memory")];
            let read = read_full(&*highest.file, &mut bytes, highest.position)?;
            file.write_all_at(&[IoSlice::new(&bytes[..read])], highest.position)?;
        }
        for found in self.files.iter().filter(|file| file.needed.is_some()) {
            disk.open(&path(root, found.id), OpenMode::Read)?.sync_data()?;
        }
        disk.sync_dir(&root.join(JOURNAL))
    }

    /// Groups that replay must see: from `first` to the highest found.
    pub fn range(&self, first: u64) -> Range<u64> {
        match self.groups.last_key_value() {
            Some((last, _)) if *last >= first => first..last + 1,
            _ => first..first,
        }
    }

    /// The groups of a range that were found, each with the number of missing ones in front of it.
    pub fn found(&self, range: Range<u64>) -> impl Iterator<Item = (u64, u64)> {
        let mut expected = range.start;
        self.groups.range(range).map(move |(number, _)| {
            let missing = number - expected;
            expected = number + 1;
            (*number, missing)
        })
    }

    /// The entries of a group, in order. `None`: it is missing or unreadable. The highest group is torn, not
    /// damaged, when an entry of it is not intact.
    pub fn read(&self, number: u64) -> io::Result<Option<Vec<ReadEntry>>> {
        let Some(group) = self.groups.get(&number) else { return Ok(None) };
        let Some(table) = read_table(&*group.file, group.position, &group.header)? else { return Ok(None) };
        let mut at = group.position + (GROUP_HEADER_BYTES + group.header.table_bytes()) as u64;
        let mut entries = Vec::with_capacity(table.len());
        let file_len = group.file.len()?;
        for TableEntry { mut entry, payload_bytes, payload_crc } in table {
            let mut intact = true;
            if let Op::Append { bytes, .. } = &mut entry.op {
                // A length that goes past the file is not worth a buffer.
                if at + payload_bytes as u64 <= file_len {
                    let mut payload = vec![0; payload_bytes];
                    read_full(&*group.file, &mut payload, at)?;
                    intact = crc32c(&payload) == payload_crc;
                    *bytes = Bytes::from(payload);
                } else {
                    intact = false;
                }
                at += payload_bytes as u64;
            }
            entries.push(ReadEntry { entry, intact });
        }
        Ok(Some(entries))
    }
}
