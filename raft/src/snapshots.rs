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
