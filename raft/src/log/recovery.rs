//! Opening the log: every segment is read and checked, and the state that its records add up to is built.
//!
//! * A torn tail (the last frame of the last segment, or a last segment that never got its first frame) was
//!   acknowledged to nobody: it is cut.
//! * Anything else that does not read back was durable once, and may hold a vote given or an entry promised:
//!   the log is refused, and the node's copy must be rebuilt from its peers. Nothing is cut or changed then.

use super::frame::{self, FIRST_BLOCK_BYTES, Record, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::state::{Location, LogState};
use crate::io::create_dir_durably;
use std::io;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use strandline_storage::disk::{Disk, DiskFile, OpenMode};

/// Why the log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    #[error("raft log: {0}")]
    Io(#[from] io::Error),
    #[error(
        "raft log damaged: {path}, byte {position}: {what}. What lies there was durable once, so nothing was \
         cut: remove this node's data and let it rejoin from its peers"
    )]
    Damaged { path: PathBuf, position: u64, what: String },
    #[error("raft log {path} has version {version}; this build reads version {}", frame::VERSION)]
    Version { path: PathBuf, version: u32 },
}

/// One segment file of an open log.
#[derive(Debug)]
pub struct Segment {
    pub header: SegmentHeader,
    pub path: PathBuf,
    pub file: Arc<dyn DiskFile>,
    /// Bytes of header and correct frames.
    pub len: u64,
    /// Highest entry index in it, valid or superseded.
    pub max_index: Option<u64>,
}

pub struct Recovered {
    pub segments: Vec<Segment>,
    pub state: LogState,
    pub next_lsn: u64,
}

pub fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{number:020}.raftlog"))
}

pub fn open(disk: &dyn Disk, dir: &Path) -> Result<Recovered, LogError> {
    create_dir_durably(disk, dir)?;
    let mut paths: Vec<(u64, PathBuf)> = disk
        .read_dir(dir)?
        .into_iter()
        .filter(|e| !e.is_dir)
        .filter_map(|e| Some((e.name.strip_suffix(".raftlog")?.parse().ok()?, e.path)))
        .collect();
    paths.sort();

    let mut recovered = Recovered { segments: Vec::new(), state: LogState::default(), next_lsn: 0 };
    let files = paths.len();
    for (position, (number, path)) in paths.into_iter().enumerate() {
        let last = position + 1 == files;
        if let Some(before) = recovered.segments.last()
            && before.header.number + 1 != number
        {
            let what = format!("segment {} before it is missing", number - 1);
            return Err(LogError::Damaged { path, position: 0, what });
        }
        recovered.read_segment(disk, dir, number, path, last)?;
    }
    recovered.state.check_complete().map_err(|what| LogError::Damaged {
        path: dir.to_owned(),
        position: 0,
        what,
    })?;
    Ok(recovered)
}

impl Recovered {
    fn read_segment(
        &mut self,
        disk: &dyn Disk,
        dir: &Path,
        number: u64,
        path: PathBuf,
        last: bool,
    ) -> Result<(), LogError> {
        let file = disk.open(&path, OpenMode::ReadWrite)?;
        let mut bytes = vec![0; usize::try_from(file.len()?).expect("a segment fits into memory")];
        file.read_exact_at(&mut bytes, 0)?;
        let damaged = |position: usize, what: String| LogError::Damaged {
            path: path.clone(),
            position: position as u64,
            what,
        };

        let header = SegmentHeader::decode(&bytes)
            .map_err(|version| LogError::Version { path: path.clone(), version })?
            .filter(|header| header.number == number);
        let first = header
            .filter(|_| bytes.len() >= FIRST_BLOCK_BYTES)
            .and_then(|h| frame::decode_frame(h.salt, &bytes[SEGMENT_HEADER_BYTES..]));
        let (Some(header), Some((first_lsn, _))) = (header, first) else {
            // The first block is synced before anything is written behind it.
            if !last || bytes.len() > FIRST_BLOCK_BYTES {
                return Err(damaged(0, "the segment's header or first frame does not read back".to_owned()));
            }
            tracing::info!(path = %path.display(), "raft log: removed a segment that was never completed");
            disk.remove_file(&path)?;
            disk.sync_dir(dir)?;
            return Ok(());
        };
        if self.segments.is_empty() {
            self.next_lsn = first_lsn;
        }

        let mut max_index = None;
        let mut at = SEGMENT_HEADER_BYTES;
        let mut newest_frame = 0..FIRST_BLOCK_BYTES;
        while at < bytes.len() {
            let Some((lsn, payload)) = frame::decode_frame(header.salt, &bytes[at..]) else {
                let behind = frame::find_frame(header.salt, &bytes[at + 1..], self.next_lsn);
                if let Some(behind) = behind {
                    let what =
                        format!("a frame does not read back, a good one follows at {}", at + 1 + behind);
                    return Err(damaged(at, what));
                }
                if !last {
                    return Err(damaged(
                        at,
                        "a frame does not read back, another segment follows".to_owned(),
                    ));
                }
                tracing::warn!(path = %path.display(), at, bytes = bytes.len() - at, "raft log: cut a torn tail");
                file.set_len(at as u64)?;
                file.sync_data()?;
                break;
            };
            if lsn != self.next_lsn {
                return Err(damaged(at, format!("frame {lsn} where frame {} belongs", self.next_lsn)));
            }
            self.next_lsn += 1;
            let mut within = 0;
            let payload_at = at + frame::FRAME_HEADER_BYTES;
            while within < payload.len() {
                let (record, length) = frame::decode_record(&payload[within..])
                    .map_err(|e| damaged(payload_at + within, e.to_string()))?;
                if let Record::Entry(entry) = &record {
                    max_index = max_index.max(Some(entry.log_id.index));
                }
                let location = Location {
                    file: file.clone(),
                    position: (payload_at + within) as u64,
                    bytes: length as u32,
                };
                self.state.replay(record, location).map_err(|what| damaged(payload_at + within, what))?;
                within += length;
            }
            if at > SEGMENT_HEADER_BYTES {
                newest_frame = at..payload_at + payload.len();
            }
            at = (payload_at + payload.len()).max(FIRST_BLOCK_BYTES);
        }
        if last {
            // The process before may have ended because it could not sync its newest frame. What was read here is then in the
            // page cache only, and counts as written: another sync would do nothing. Before anything is put behind
            // it, it is written again.
            file.write_all_at(&[IoSlice::new(&bytes[newest_frame.clone()])], newest_frame.start as u64)?;
            file.sync_data()?;
            disk.sync_dir(dir)?;
        }
        self.segments.push(Segment { header, path, file, len: at as u64, max_index });
        Ok(())
    }
}
