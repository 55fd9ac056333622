//! Space set aside for the one write that frees space: files are removed only after a checkpoint that no longer lists
//! them, and on a disk that others have filled to the last byte no checkpoint could be written.
//!
//! The file means nothing. It may be missing (given up, or never written), and is written anew once there is room.

use crate::store::Shared;
use std::io;

/// Beside the checkpoints.
pub(crate) const NAME: &str = "ballast";
/// A checkpoint takes about a hundred bytes a log.
const BYTES: usize = 1 << 20;

/// Frees the space. `false`: it was given up before.
pub(crate) fn give_up(shared: &Shared) -> bool {
    match shared.disk.remove_file(&shared.root.join(NAME)) {
        Ok(()) => {
            tracing::warn!("no space is left at all: what was set aside for checkpoints is used");
            true
        }
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(%error, "the space set aside for checkpoints cannot be used");
            }
            false
        }
    }
}

/// Sets the space aside if that is not done and there is room beyond what is reserved. What goes wrong is told, and no more:
/// the next checkpoint tries again.
pub(crate) fn restore(shared: &Shared) {
    let path = shared.root.join(NAME);
    let room = || -> io::Result<bool> {
        let free = shared.disk.free_bytes(&shared.root)?;
        Ok(free >= shared.config.reserved_bytes + 2 * BYTES as u64 && !shared.disk.exists(&path)?)
    };
    let restored = room().and_then(|room| match room {
        true => shared.disk.write_file_atomically(&path, &vec![0; BYTES]),
        false => Ok(()),
    });
    if let Err(error) = restored {
        tracing::warn!(%error, "no space could be set aside for checkpoints");
    }
}
