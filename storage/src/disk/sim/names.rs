//! Names of the simulated disk: the tree that calls see, the tree that would survive, and the operations
//! between. Operations that touch a common name survive in order; others survive independently. A rename is
//! one operation: both names change or neither does.

use super::image::Unsynced;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};

pub(super) type Inode = u64;
pub(super) const ROOT: Inode = 0;

/// A name in a directory.
pub(super) type Name = (Inode, String);

#[derive(Clone, Debug)]
struct NameOp {
    removed: Option<Name>,
    added: Option<(Name, Inode)>,
}

impl NameOp {
    fn names(&self) -> impl Iterator<Item = &Name> {
        self.removed.iter().chain(self.added.iter().map(|(name, _)| name))
    }

    fn apply(self, tree: &mut BTreeMap<Name, Inode>) {
        if let Some(name) = self.removed {
            tree.remove(&name);
        }
        if let Some((name, inode)) = self.added {
            tree.insert(name, inode);
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    current: BTreeMap<Name, Inode>,
    durable: BTreeMap<Name, Inode>,
    /// Not durable yet, oldest first.
    pending: Vec<NameOp>,
}

impl Names {
    pub fn get(&self, dir: Inode, name: &str) -> Option<Inode> {
        self.current.get(&(dir, name.to_owned())).copied()
    }

    /// Names of one directory, in order.
    pub fn list(&self, dir: Inode) -> impl Iterator<Item = (&str, Inode)> {
        list(&self.current, dir)
    }

    pub fn list_durable(&self, dir: Inode) -> impl Iterator<Item = (&str, Inode)> {
        list(&self.durable, dir)
    }

    pub fn add(&mut self, name: Name, inode: Inode) {
        self.change(NameOp { removed: None, added: Some((name, inode)) });
    }

    pub fn remove(&mut self, name: Name) {
        self.change(NameOp { removed: Some(name), added: None });
    }

    pub fn rename(&mut self, from: Name, to: Name, inode: Inode) {
        self.change(NameOp { removed: Some(from), added: Some((to, inode)) });
    }

    fn change(&mut self, op: NameOp) {
        self.pending.push(op.clone());
        op.apply(&mut self.current);
    }

    /// Makes the operations on `dir` durable, and those in other directories that they build on.
    pub fn sync_dir(&mut self, dir: Inode) {
        let mut needed: BTreeSet<Name> = BTreeSet::new();
        let mut synced = vec![false; self.pending.len()];
        for (op, synced) in self.pending.iter().zip(&mut synced).rev() {
            if op.names().any(|name| name.0 == dir || needed.contains(name)) {
                *synced = true;
                needed.extend(op.names().cloned());
            }
        }
        for (op, synced) in std::mem::take(&mut self.pending).into_iter().zip(synced) {
            if synced {
                op.apply(&mut self.durable);
            } else {
                self.pending.push(op);
            }
        }
    }

    pub fn sync_all(&mut self) {
        for op in std::mem::take(&mut self.pending) {
            op.apply(&mut self.durable);
        }
    }

    pub fn is_synced(&self, dir: Inode) -> bool {
        !self.pending.iter().any(|op| op.names().any(|name| name.0 == dir))
    }

    pub fn power_loss(&mut self, unsynced: Unsynced, rng: &mut StdRng) {
        let mut lost: BTreeSet<Name> = BTreeSet::new();
        for op in std::mem::take(&mut self.pending) {
            if !op.names().any(|name| lost.contains(name)) && unsynced.keeps(rng) {
                op.apply(&mut self.durable);
            } else {
                lost.extend(op.names().cloned());
            }
        }
        // What hangs in a directory that is gone is gone.
        let mut reachable = BTreeSet::from([ROOT]);
        let mut unvisited = vec![ROOT];
        while let Some(dir) = unvisited.pop() {
            for (_, inode) in list(&self.durable, dir) {
                if reachable.insert(inode) {
                    unvisited.push(inode);
                }
            }
        }
        self.durable.retain(|name, _| reachable.contains(&name.0));
        self.current = self.durable.clone();
    }

    /// Every inode that a name, now or after a power loss, may lead to.
    pub fn inodes(&self) -> BTreeSet<Inode> {
        let pending = self.pending.iter().filter_map(|op| op.added.as_ref().map(|(_, inode)| *inode));
        self.current.values().chain(self.durable.values()).copied().chain(pending).chain([ROOT]).collect()
    }
}

fn list(tree: &BTreeMap<Name, Inode>, dir: Inode) -> impl Iterator<Item = (&str, Inode)> {
    tree.range((dir, String::new())..(dir + 1, String::new()))
        .map(|((_, name), inode)| (name.as_str(), *inode))
}
