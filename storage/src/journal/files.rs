//! The journal's files: which are in use, which are free, and making free ones ready.
//!
//! A file that is written for the first time costs a journal commit of the file system with every sync; one
//! that was filled with zeros before does not. The first file of a fresh store is used unprepared, so that
//! a start waits for nothing; once there is traffic, the next ones are prepared in the background and the
//! writer changes over.
//!
//! Prepared files are written past the page cache: nothing reads them but a recovery, and it costs half as much
//! (with the pages gone from the cache, a tenth).

use super::format::padded;
use super::reader::FoundFile;
use crate::disk::{BlockBuffer, Disk, DiskFile, OpenMode};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Directory of the journal, below the store's.
pub const JOURNAL: &str = "journal";

const CHUNK: usize = 1 << 20;

#[derive(Debug, Default)]
struct Files {
    /// Free and prepared.
    ready: Vec<u32>,
    /// Free, never written to the end.
    raw: Vec<u32>,
    /// By generation: the file, and whether it was prepared.
    used: BTreeMap<u64, (u32, bool)>,
    next_id: u32,
    next_generation: u64,
    preparing: bool,
}

#[derive(Debug)]
pub struct JournalFiles {
    dir: PathBuf,
    file_bytes: u64,
    max: usize,
    files: Mutex<Files>,
}

/// A file that the writer has begun to use.
#[derive(Debug)]
pub struct Begun {
    pub file: Arc<dyn DiskFile>,
    pub generation: u64,
    pub prepared: bool,
}

pub fn file_name(id: u32) -> String {
    format!("{id:08}.journal")
}

pub fn parse_file_name(name: &str) -> Option<u32> {
    name.strip_suffix(".journal").filter(|id| id.len() == 8)?.parse().ok()
}

impl JournalFiles {
    /// `found` are the files that exist. Those that replay needed stay in use until the first checkpoint.
    pub fn new(root: &Path, file_bytes: u64, max: usize, first_generation: u64, found: &[FoundFile]) -> Self {
        let file_bytes = padded(file_bytes);
        let mut files = Files { next_generation: first_generation, ..Files::default() };
        for FoundFile { id, len, needed } in found {
            let prepared = *len >= file_bytes;
            files.next_id = files.next_id.max(id + 1);
            match needed {
                Some(generation) => {
                    files.used.insert(*generation, (*id, prepared));
                }
                None if prepared => files.ready.push(*id),
                None => files.raw.push(*id),
            }
        }
        JournalFiles { dir: root.join(JOURNAL), file_bytes, max: max.max(2), files: Mutex::new(files) }
    }

    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// Files whose contents a crash would need.
    pub fn used(&self) -> usize {
        self.files.lock().used.len()
    }

    pub fn max(&self) -> usize {
        self.max
    }

    pub fn has_ready(&self) -> bool {
        !self.files.lock().ready.is_empty()
    }

    /// Opens the next file to write.
    pub fn begin(&self, disk: &dyn Disk) -> io::Result<Begun> {
        let (id, prepared, new) = {
            let mut files = self.files.lock();
            match files.ready.pop() {
                Some(id) => (id, true, false),
                None => match files.raw.pop() {
                    Some(id) => (id, false, false),
                    None => {
                        files.next_id += 1;
                        (files.next_id - 1, false, true)
                    }
                },
            }
        };
        let (path, mode) = (self.dir.join(file_name(id)), OpenMode::ReadWriteCreate);
        // One that grows is better off in the page cache.
        let opened = if prepared { disk.open_direct(&path, mode) } else { disk.open(&path, mode) };
        let opened = opened.and_then(|file| {
            if new {
                disk.sync_dir(&self.dir)?;
            }
            Ok(file)
        });
        let mut files = self.files.lock();
        match opened {
            Ok(file) => {
                let generation = files.next_generation;
                files.next_generation += 1;
                files.used.insert(generation, (id, prepared));
                Ok(Begun { file, generation, prepared })
            }
            Err(error) => {
                if prepared { &mut files.ready } else { &mut files.raw }.push(id);
                Err(error)
            }
        }
    }

    /// A durable checkpoint covers every file before `generation`.
    pub fn recycle_before(&self, generation: u64) {
        let mut files = self.files.lock();
        let kept = files.used.split_off(&generation);
        for (id, prepared) in std::mem::replace(&mut files.used, kept).into_values() {
            if prepared { &mut files.ready } else { &mut files.raw }.push(id);
        }
    }

    /// Fills one more file with zeros, if there is none ready and there may be one more. An incomplete one
    /// is used unprepared.
    pub fn prepare_one(&self, disk: &dyn Disk) -> io::Result<()> {
        let (id, new) = {
            let mut files = self.files.lock();
            if files.preparing || !files.ready.is_empty() {
                return Ok(());
            }
            let (id, new) = match files.raw.pop() {
                Some(id) => (id, false),
                None if files.used.len() < self.max => {
                    files.next_id += 1;
                    (files.next_id - 1, true)
                }
                None => return Ok(()),
            };
            files.preparing = true;
            (id, new)
        };
        let prepared = self.fill(disk, id, new);
        let mut files = self.files.lock();
        files.preparing = false;
        match prepared {
            Ok(()) => files.ready.push(id),
            Err(_) => files.raw.push(id),
        }
        prepared
    }

    fn fill(&self, disk: &dyn Disk, id: u32, new: bool) -> io::Result<()> {
        let file = disk.open_direct(&self.dir.join(file_name(id)), OpenMode::ReadWriteCreate)?;
        if new {
            disk.sync_dir(&self.dir)?;
        }
        let mut buffer = BlockBuffer::default();
        let zeros = buffer.bytes(CHUNK.min(self.file_bytes as usize));
        zeros.fill(0);
        let mut at = 0;
        while at < self.file_bytes {
            let len = (self.file_bytes - at).min(zeros.len() as u64);
            file.write_all_at(&[IoSlice::new(&zeros[..len as usize])], at)?;
            at += len;
        }
        file.sync_data()
    }
}
