//! DATA_DIR: who uses it, and what earlier runs have left in it.
//!
//! ```text
//! DATA_DIR/dev.lock         locked by the `dev` that runs here, with its pid; the lock ends with the process
//! DATA_DIR/node-ID/meta     written by the node: names the cluster that it belongs to
//! DATA_DIR/node-ID/joins    written here before a node is started that is not one of those that formed the cluster
//! DATA_DIR/node-ID/removed  written here once the node has said that it was removed from the cluster
//! ```

use crate::exit::{Exit, Failure};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

/// More than `meta` and `dev.lock` ever hold.
const TEXT_BYTES_MAX: u64 = 4096;

/// Where a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It belongs to a cluster.
    Member,
    /// It was started to form a cluster, and stopped before it had heard of its being formed.
    Forming,
    /// It was started to join a cluster, and stopped before it belonged to it.
    Joining,
    /// It was removed from its cluster.
    Removed,
}

/// Where each node stands; those without data are left out.
pub type Found = BTreeMap<u64, Standing>;

/// The directory, and the lock on it.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    lock: Option<File>,
}

impl DataDir {
    /// Locks the directory if it exists; nothing is made yet.
    pub fn open(path: &Path) -> Result<DataDir, Failure> {
        let mut dir = DataDir { path: path.to_owned(), lock: None };
        if path.is_dir() {
            dir.lock()?;
        }
        Ok(dir)
    }

    /// Makes and locks it if it did not exist.
    pub fn make(&mut self) -> Result<(), Failure> {
        if self.lock.is_none() {
            std::fs::create_dir_all(&self.path).map_err(|error| unusable(&self.path, &error))?;
            self.lock()?;
        }
        Ok(())
    }

    fn lock(&mut self) -> Result<(), Failure> {
        let path = self.path.join("dev.lock");
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let mut file = file.map_err(|error| unusable(&path, &error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = text_of(&path).ok().flatten().unwrap_or_default();
                let holder = holder.trim();
                let who = if holder.is_empty() { String::new() } else { format!(" (pid {holder})") };
                let message = format!("another `strandline dev`{who} uses {}", self.path.display());
                return Err(Failure::new(Exit::Failure, message).hint(
                    "nothing was started; stop that one, or choose another --data-dir and other ports",
                ));
            }
            Err(TryLockError::Error(error)) => return Err(unusable(&path, &error)),
        }
        // For whoever comes second; the lock is what counts.
        let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(|error| unusable(&path, &error))?;
        self.lock = Some(file);
        Ok(())
    }

    pub fn node(&self, id: u64) -> PathBuf {
        self.path.join(format!("node-{id}"))
    }

    /// Reads what is there.
    pub fn look(&self) -> Result<Found, Failure> {
        let mut found = Found::default();
        let entries = match std::fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(found),
            Err(error) => return Err(unusable(&self.path, &error)),
        };
        for entry in entries {
            let entry = entry.map_err(|error| unusable(&self.path, &error))?;
            let name = entry.file_name();
            let Some(id) = name.to_str().and_then(|name| name.strip_prefix("node-")?.parse().ok()) else {
                continue;
            };
            if let Some(standing) = self.standing(id)? {
                found.insert(id, standing);
            }
        }
        Ok(found)
    }

    fn standing(&self, id: u64) -> Result<Option<Standing>, Failure> {
        let dir = self.node(id);
        if dir.join("removed").exists() {
            return Ok(Some(Standing::Removed));
        }
        let meta = dir.join("meta");
        let text = text_of(&meta).map_err(|error| unusable(&meta, &error))?;
        let joins = dir.join("joins").exists();
        Ok(match text {
            Some(text) if text.lines().any(|line| line.starts_with("cluster ")) => Some(Standing::Member),
            _ if joins => Some(Standing::Joining),
            Some(_) => Some(Standing::Forming),
            None => None,
        })
    }

    /// Remembers that a node is not one of those that formed the cluster.
    pub fn mark_joining(&self, id: u64) -> Result<(), Failure> {
        self.mark(id, "joins", "This node joined a cluster that existed before it.\n")
    }

    /// Remembers that a node was removed from its cluster, which holds for as long as its directory is there.
    pub fn mark_removed(&self, id: u64) -> Result<(), Failure> {
        let text = "This node was removed from its cluster: `strandline dev` leaves it out. Delete the directory \
                    node-ID that this file is in to have a new node.\n";
        self.mark(id, "removed", text)
    }

    fn mark(&self, id: u64, name: &str, text: &str) -> Result<(), Failure> {
        let dir = self.node(id);
        let path = dir.join(name);
        let written = std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(&path, text));
        written.map_err(|error| unusable(&path, &error))
    }
}

fn unusable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Failure, format_args!("cannot use {}: {error}", path.display()))
}

/// `None`: there is no such file.
fn text_of(path: &Path) -> std::io::Result<Option<String>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(TEXT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_user_is_refused_with_the_pid_of_the_first_and_the_lock_ends_with_its_holder() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("data");
        let mut first = DataDir::open(&path).unwrap();
        assert!(!path.exists(), "nothing is made before it is known that the cluster can start");
        first.make().unwrap();
        let failure = DataDir::open(&path).unwrap_err();
        assert!(failure.message.contains(&format!("(pid {})", std::process::id())), "{failure:?}");
        drop(first);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn what_earlier_runs_left_is_found() {
        let place = tempfile::tempdir().unwrap();
        let dir = DataDir::open(place.path()).unwrap();
        assert_eq!(dir.look().unwrap(), Found::default());
        for (id, meta) in
            [(1, Some("head\ncluster 7\n")), (2, Some("head\nnode 2\n")), (3, None), (10, Some("cluster 7"))]
        {
            std::fs::create_dir(dir.node(id)).unwrap();
            if let Some(meta) = meta {
                std::fs::write(dir.node(id).join("meta"), meta).unwrap();
            }
        }
        std::fs::write(place.path().join("node-x"), "").unwrap();
        dir.mark_removed(10).unwrap();
        dir.mark_joining(4).unwrap();
        let expected =
            [(1, Standing::Member), (2, Standing::Forming), (4, Standing::Joining), (10, Standing::Removed)];
        assert_eq!(dir.look().unwrap(), Found::from(expected));
    }
}
