//! Snapshot files. One is kept, the newest.
//!
//! ```text
//!   file    `<index, 20 digits>.snapshot`
//!   bytes   magic "STRNDSNP" 8 │ version u32 │ meta bytes u32 │ image bytes u64 │ crc32c u32 of what follows
//!           │ meta: postcard of openraft's SnapshotMeta │ image: strandline_metadata::snapshot
//! ```
//! Numbers are little endian. A snapshot is written to a temporary file, synced, renamed, and its directory
//! synced, before anything older is removed or the log purged: at any moment there is a whole one.

use crate::io::create_dir_durably;
use crate::log::crc32c;
use crate::types::SnapshotMeta;
use bytes::Bytes;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use strandline_storage::disk::Disk;

const MAGIC: &[u8; 8] = b"STRNDSNP";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 28;
/// Larger snapshots are neither read nor accepted from a peer.
pub const MAX_SNAPSHOT_BYTES: u64 = 1 << 30;

/// Space that a snapshot leaves to the log.
const RESERVED_BYTES: u64 = 16 << 20;

#[derive(Clone, Debug)]
pub struct SnapshotStore {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
}

impl SnapshotStore {
    /// Creates the directory when missing.
    pub fn open(disk: Arc<dyn Disk>, dir: &Path) -> io::Result<Self> {
        create_dir_durably(&*disk, dir)?;
        Ok(SnapshotStore { disk, dir: dir.to_owned() })
    }

    /// Writes the snapshot durably, then removes older ones.
    pub fn save(&self, meta: &SnapshotMeta, image: &[u8]) -> io::Result<()> {
        let index = meta.last_log_id.map_or(0, |id| id.index);
        let path = self.dir.join(format!("{index:020}.snapshot"));
        self.disk.write_file_atomically(&path, &encode(meta, image))?;
        for (_, older) in self.list()?.into_iter().filter(|(i, _)| *i < index) {
            self.disk.remove_file(&older)?;
        }
        self.disk.sync_dir(&self.dir)
    }

    /// The newest snapshot. One that does not read back is an error: it is never passed over in silence.
    pub fn load(&self) -> io::Result<Option<(SnapshotMeta, Bytes)>> {
        let Some((_, path)) = self.list()?.pop() else { return Ok(None) };
        let bytes = self.disk.read_file(&path, MAX_SNAPSHOT_BYTES)?;
        let (meta, image) = decode(bytes).map_err(|what| {
            io::Error::new(io::ErrorKind::InvalidData, format!("snapshot {}: {what}", path.display()))
        })?;
        Ok(Some((meta, image)))
    }

    /// Index of the newest snapshot, whether or not it reads back.
    pub fn newest(&self) -> io::Result<Option<u64>> {
        Ok(self.list()?.pop().map(|(index, _)| index))
    }

    /// Whether a snapshot can be written without taking the last space that others need.
    pub fn has_room(&self) -> io::Result<bool> {
        let last: u64 = self.disk.read_dir(&self.dir)?.iter().map(|e| e.len).max().unwrap_or(0);
        Ok(self.disk.free_bytes(&self.dir)? >= last.saturating_mul(2).saturating_add(RESERVED_BYTES))
    }

    fn list(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let mut found: Vec<(u64, PathBuf)> = self
            .disk
            .read_dir(&self.dir)?
            .into_iter()
            .filter_map(|e| Some((e.name.strip_suffix(".snapshot")?.parse().ok()?, e.path)))
            .collect();
        found.sort();
        Ok(found)
    }
}

fn encode(meta: &SnapshotMeta, image: &[u8]) -> Vec<u8> {
    let meta = postcard::to_stdvec(meta).expect("snapshot metadata can be encoded");
    let mut bytes = Vec::with_capacity(HEADER_BYTES + meta.len() + image.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(meta.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&(image.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&crc32c(&[&meta, image]).to_le_bytes());
    bytes.extend_from_slice(&meta);
    bytes.extend_from_slice(image);
    bytes
}

fn decode(bytes: Vec<u8>) -> Result<(SnapshotMeta, Bytes), String> {
    let header = bytes.get(..HEADER_BYTES).ok_or("cut off")?;
    if &header[..8] != MAGIC {
        return Err("not a snapshot".to_owned());
    }
    let u32_at = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes"));
    if u32_at(8) != VERSION {
        return Err(format!("version {}; this build reads version {VERSION}", u32_at(8)));
    }
    let meta_bytes = u32_at(12) as usize;
    let image_bytes = u64::from_le_bytes(header[16..24].try_into().expect("eight bytes"));
    let body = &bytes[HEADER_BYTES..];
    if body.len() as u64 != image_bytes.saturating_add(meta_bytes as u64) {
        return Err("its length does not match".to_owned());
    }
    if u32_at(24) != crc32c(&[body]) {
        return Err("its checksum does not match".to_owned());
    }
    let meta = postcard::from_bytes(&body[..meta_bytes]).map_err(|e| e.to_string())?;
    Ok((meta, Bytes::from(bytes).slice(HEADER_BYTES + meta_bytes..)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::LogId;
    use strandline_storage::disk::SimDisk;
    use strandline_storage::disk::sim::Unsynced;

    fn disk(seed: u64) -> SimDisk {
        let disk = SimDisk::new(seed);
        disk.create_dir_all(Path::new("/data")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        disk
    }

    fn open(disk: &SimDisk) -> SnapshotStore {
        SnapshotStore::open(Arc::new(disk.clone()), Path::new("/data/raft/snapshots")).unwrap()
    }

    fn meta(index: u64) -> SnapshotMeta {
        SnapshotMeta { last_log_id: Some(LogId::new(2_u64.into(), index)), ..SnapshotMeta::default() }
    }

    fn image(index: u64) -> Vec<u8> {
        (0..9000).map(|i| (i * index % 251) as u8).collect()
    }

    #[test]
    fn the_newest_snapshot_is_kept_and_the_others_go() {
        let disk = disk(1);
        let store = open(&disk);
        assert_eq!(store.load().unwrap(), None);
        for index in [5, 900, 1000] {
            store.save(&meta(index), &image(index)).unwrap();
            assert_eq!(open(&disk).load().unwrap(), Some((meta(index), image(index).into())));
            assert_eq!(store.newest().unwrap(), Some(index));
        }
        assert_eq!(disk.files().len(), 1);
        store.save(&meta(6), &image(6)).unwrap();
        assert_eq!(store.load().unwrap().unwrap().0, meta(1000), "a late older one does not win");
    }

    #[test]
    fn power_loss_at_any_operation_leaves_the_old_snapshot_or_the_new_one() {
        let total = {
            let disk = disk(1);
            let store = open(&disk);
            store.save(&meta(5), &image(5)).unwrap();
            store.save(&meta(9), &image(9)).unwrap();
            disk.op_count()
        };
        for unsynced in [Unsynced::Random, Unsynced::Lost, Unsynced::Kept] {
            for seed in 0..4 {
                let first = {
                    let disk = disk(1);
                    open(&disk).save(&meta(5), &image(5)).unwrap();
                    disk.op_count()
                };
                for crash_at in first..total {
                    let disk = disk(seed * 1000 + crash_at);
                    let store = open(&disk);
                    store.save(&meta(5), &image(5)).unwrap();
                    disk.set_crash_at_op(crash_at);
                    assert!(store.save(&meta(9), &image(9)).is_err());
                    disk.power_loss_with(unsynced);
                    let found = open(&disk).load().unwrap().expect("a snapshot");
                    let whole = [5, 9].map(|index| (meta(index), Bytes::from(image(index))));
                    assert!(whole.contains(&found), "crash at {crash_at}, {unsynced:?}");
                }
            }
        }
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let disk = disk(1);
        let store = open(&disk);
        store.save(&meta(5), &image(5)).unwrap();
        let (path, len) = disk.files()[0].clone();
        for at in (0..len).step_by(37).chain(0..64) {
            let bit = (at % 8) as u8;
            disk.flip_bit(&path, at, bit).unwrap();
            assert_eq!(store.load().unwrap_err().kind(), io::ErrorKind::InvalidData, "byte {at}");
            disk.flip_bit(&path, at, bit).unwrap();
        }
        assert!(store.load().unwrap().is_some());
    }
}
