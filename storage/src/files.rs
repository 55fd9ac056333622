//! Open segment files, at most so many at once whatever the number of logs: the least recently used one
//! is closed. A file that is in use stays open until its user drops it.

use crate::disk::{Disk, DiskFile, OpenMode};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use strandline_record::TopicPartition;

pub type FileKey = (TopicPartition, u32);

#[derive(Debug, Default)]
struct Open {
    files: BTreeMap<FileKey, (Arc<dyn DiskFile>, u64)>,
    by_use: BTreeMap<u64, FileKey>,
    clock: u64,
}

#[derive(Debug)]
pub struct FileCache {
    max: usize,
    open: Mutex<Open>,
}

impl Open {
    fn touch(&mut self, key: &FileKey) -> Option<Arc<dyn DiskFile>> {
        self.clock += 1;
        let clock = self.clock;
        let (file, used) = self.files.get_mut(key)?;
        let key = self.by_use.remove(used).expect("every open file has its place");
        *used = clock;
        self.by_use.insert(clock, key);
        Some(file.clone())
    }

    fn remove(&mut self, key: &FileKey) -> Option<Arc<dyn DiskFile>> {
        let (file, used) = self.files.remove(key)?;
        self.by_use.remove(&used);
        Some(file)
    }
}

impl FileCache {
    pub fn new(max: usize) -> Self {
        FileCache { max: max.max(8), open: Mutex::default() }
    }

    pub fn get(
        &self,
        disk: &dyn Disk,
        key: FileKey,
        path: &Path,
        mode: OpenMode,
    ) -> io::Result<Arc<dyn DiskFile>> {
        if let Some(file) = self.open.lock().touch(&key) {
            return Ok(file);
        }
        let file = disk.open(path, mode)?;
        let mut open = self.open.lock();
        if let Some(other) = open.touch(&key) {
            return Ok(other);
        }
        open.clock += 1;
        let clock = open.clock;
        open.files.insert(key, (file.clone(), clock));
        open.by_use.insert(clock, key);
        // Closing may write: not under the lock.
        let mut closed = Vec::new();
        while open.files.len() > self.max {
            let Some((_, oldest)) = open.by_use.pop_first() else { break };
            closed.extend(open.files.remove(&oldest));
        }
        drop(open);
        drop(closed);
        Ok(file)
    }

    pub fn forget(&self, key: &FileKey) {
        let removed = self.open.lock().remove(key);
        drop(removed);
    }

    pub fn clear(&self) {
        let open = std::mem::take(&mut *self.open.lock());
        drop(open);
    }
}
