//! Whose directory this is: one small text file, readable by a person.
//!
//! ```text
//! strandline-storage 1
//! directory <uuid>           drawn when the directory was created; tells a wiped node from a restarted one
//! node <id>
//! cluster <uuid>             absent until the node has joined one
//! clean-epoch <epoch>        broker epoch of the last run, if it ended cleanly; cleared at the next open
//! crc <hex>                  CRC-32C of the lines before
//! ```

use crate::disk::Disk;
use std::io;
use std::path::{Path, PathBuf};
use strandline_record::{BrokerEpoch, BrokerId, crc32c};
use uuid::Uuid;

const FILE: &str = "meta";
const HEAD: &str = "strandline-storage 1";
const BYTES_MAX: u64 = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    pub directory: Uuid,
    pub node: BrokerId,
    pub cluster: Option<Uuid>,
    pub clean_epoch: Option<BrokerEpoch>,
}

pub fn path(root: &Path) -> PathBuf {
    root.join(FILE)
}

impl Meta {
    fn encode(&self) -> String {
        let mut text = format!("{HEAD}\ndirectory {}\nnode {}\n", self.directory, self.node);
        if let Some(cluster) = self.cluster {
            text += &format!("cluster {cluster}\n");
        }
        if let Some(epoch) = self.clean_epoch {
            text += &format!("clean-epoch {epoch}\n");
        }
        let crc = crc32c(text.as_bytes());
        text + &format!("crc {crc:08x}\n")
    }

    fn decode(bytes: &[u8]) -> Result<Meta, String> {
        let text = std::str::from_utf8(bytes).map_err(|_| "not text".to_owned())?;
        let (body, crc) = text.rsplit_once("crc ").ok_or("no checksum")?;
        if crc.strip_suffix('\n') != Some(&format!("{:08x}", crc32c(body.as_bytes()))) {
            return Err("the checksum does not match".to_owned());
        }
        let mut lines = body.lines();
        if lines.next() != Some(HEAD) {
            return Err("not a storage directory of this version".to_owned());
        }
        let (mut directory, mut node, mut cluster, mut clean_epoch) = (None, None, None, None);
        for line in lines {
            let (key, value) = line.split_once(' ').ok_or_else(|| format!("line {line:?}"))?;
            let bad = || format!("line {line:?}");
            match key {
                "directory" => directory = Some(value.parse().map_err(|_| bad())?),
                "node" => node = Some(value.parse().map_err(|_| bad())?),
                "cluster" => cluster = Some(value.parse().map_err(|_| bad())?),
                "clean-epoch" => clean_epoch = Some(value.parse().map_err(|_| bad())?),
                _ => return Err(bad()),
            }
        }
        let directory = directory.ok_or("no directory id")?;
        Ok(Meta { directory, node: node.ok_or("no node id")?, cluster, clean_epoch })
    }

    pub fn write(&self, disk: &dyn Disk, root: &Path) -> io::Result<()> {
        disk.write_file_atomically(&path(root), self.encode().as_bytes())
    }

    /// `None`: there is none. `InvalidData`: it is unreadable.
    pub fn read(disk: &dyn Disk, root: &Path) -> io::Result<Option<Meta>> {
        match disk.read_file(&path(root), BYTES_MAX) {
            Ok(bytes) => {
                Meta::decode(&bytes).map(Some).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_noticed() {
        let meta = Meta {
            directory: Uuid::from_u128(1),
            node: BrokerId(7),
            cluster: Some(Uuid::from_u128(2)),
            clean_epoch: Some(BrokerEpoch(99)),
        };
        let text = meta.encode();
        assert_eq!(Meta::decode(text.as_bytes()), Ok(meta));
        for bit in 0..text.len() * 8 {
            let mut bytes = text.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(Meta::decode(&bytes), Ok(meta), "bit {bit}");
            assert!(Meta::decode(&bytes).is_err(), "bit {bit}");
        }
    }
}
