//! Bytes of one simulated file: what reads see, what would survive, and what lies between.
//!
//! Un-synced writes are tracked by page. A truncation seals the pages written before it: whether it
//! survives decides for everything behind it, because a file system journals truncations in order. Within
//! one such era pages survive independently of each other, whole, in part (by sector) or not at all, and so
//! does the length.

use rand::RngExt;
use rand::rngs::StdRng;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub(super) const PAGE: u64 = 4096;
const SECTOR: usize = 512;
/// Un-synced truncations remembered; beyond that the oldest counts as written back.
const SEALED_MAX: usize = 16;

type Page = Arc<[u8; PAGE as usize]>;

/// Bytes and length. A missing page is zeros; nothing lies at or behind `len`.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    pages: BTreeMap<u64, Page>,
    len: u64,
}

impl Image {
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Reads up to the end; returns how much.
    pub fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let len = self.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        for (page, at, part) in parts(offset, len) {
            let out = &mut buf[part];
            match self.pages.get(&page) {
                Some(bytes) => out.copy_from_slice(&bytes[at..at + out.len()]),
                None => out.fill(0),
            }
        }
        len
    }

    fn write(&mut self, data: &[u8], offset: u64) {
        for (page, at, part) in parts(offset, data.len()) {
            let data = &data[part];
            // Prewritten zeros cost no memory.
            if self.pages.contains_key(&page) || data.iter().any(|byte| *byte != 0) {
                Arc::make_mut(self.pages.entry(page).or_insert_with(zeros))[at..at + data.len()]
                    .copy_from_slice(data);
            }
        }
        self.len = self.len.max(offset + data.len() as u64);
    }

    /// Cuts or extends, and restores the invariant that nothing lies behind the end.
    fn set_len(&mut self, len: u64) {
        self.len = len;
        self.pages.split_off(&len.div_ceil(PAGE));
        let used = (len % PAGE) as usize;
        if used != 0
            && let Some(last) = self.pages.get_mut(&(len / PAGE))
            && last[used..].iter().any(|byte| *byte != 0)
        {
            Arc::make_mut(last)[used..].fill(0);
        }
    }

    fn page(&self, page: u64) -> Option<Page> {
        self.pages.get(&page).cloned()
    }

    fn put(&mut self, page: u64, bytes: Option<Page>) {
        match bytes {
            Some(bytes) => self.pages.insert(page, bytes),
            None => self.pages.remove(&page),
        };
    }

    fn flip_bit(&mut self, offset: u64, bit: u8) {
        if offset < self.len {
            let page = self.pages.entry(offset / PAGE).or_insert_with(zeros);
            Arc::make_mut(page)[(offset % PAGE) as usize] ^= 1 << bit;
        }
    }
}

fn zeros() -> Page {
    Arc::new([0; PAGE as usize])
}

/// Splits a range of a file at page boundaries: page, offset in the page, range of the caller's buffer.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        if done == len {
            return None;
        }
        let position = offset + done as u64;
        let at = (position % PAGE) as usize;
        let part = done..len.min(done + PAGE as usize - at);
        done = part.end;
        Some((position / PAGE, at, part))
    })
}

/// What a power loss leaves of what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// Nothing.
    Lost,
    /// Everything.
    Kept,
    /// Anything between, drawn from the seed; the two extremes are drawn often.
    Random,
}

impl Unsynced {
    /// Settles for one file or directory what `Random` means for it.
    pub(super) fn draw(self, rng: &mut StdRng) -> Unsynced {
        match (self, rng.random_range(0..8)) {
            (Unsynced::Random, 0..=2) => Unsynced::Lost,
            (Unsynced::Random, 3) => Unsynced::Kept,
            (other, _) => other,
        }
    }

    pub(super) fn keeps(self, rng: &mut StdRng) -> bool {
        match self {
            Unsynced::Lost => false,
            Unsynced::Kept => true,
            Unsynced::Random => rng.random_bool(0.5),
        }
    }
}

/// What was written between two truncations (or the last sync and the first truncation).
#[derive(Clone, Debug)]
struct Era {
    pages: BTreeMap<u64, Option<Page>>,
    len: u64,
    truncated_to: u64,
}

/// One file.
#[derive(Clone, Debug, Default)]
pub(super) struct FileState {
    /// What reads see: the page cache.
    current: Image,
    /// What a power loss surely leaves.
    durable: Image,
    /// Ended by a truncation that is not synced, oldest first.
    sealed: Vec<Era>,
    /// Pages of `current` written since the last truncation or sync.
    dirty: BTreeSet<u64>,
    /// Earlier versions of dirty pages, of before the first truncation, that have reached the disk: the
    /// kernel may write back at any time.
    written_back: BTreeMap<u64, Option<Page>>,
    /// Space reserved by `allocate`.
    pub reserved: u64,
}

impl FileState {
    pub fn current(&self) -> &Image {
        &self.current
    }

    pub fn durable(&self) -> &Image {
        &self.durable
    }

    /// Bytes of disk that the file takes.
    pub fn allocated(&self) -> u64 {
        self.current.len().max(self.reserved).next_multiple_of(PAGE)
    }

    pub fn is_synced(&self) -> bool {
        self.dirty.is_empty() && self.sealed.is_empty() && self.current.len == self.durable.len
    }

    pub fn write(&mut self, data: &[u8], offset: u64, rng: &mut StdRng) {
        for (page, _, _) in parts(offset, data.len()) {
            if !self.dirty.insert(page) && self.sealed.is_empty() && rng.random_ratio(1, 16) {
                self.written_back.insert(page, self.current.page(page));
            }
        }
        self.current.write(data, offset);
    }

    pub fn set_len(&mut self, len: u64) {
        if len < self.current.len {
            let pages = std::mem::take(&mut self.dirty).into_iter();
            let pages = pages.map(|page| (page, self.current.page(page))).collect();
            self.sealed.push(Era { pages, len: self.current.len, truncated_to: len });
            if self.sealed.len() > SEALED_MAX {
                let oldest = self.sealed.remove(0);
                self.write_back(oldest);
            }
        }
        self.current.set_len(len);
    }

    fn write_back(&mut self, era: Era) {
        self.written_back.clear();
        for (page, bytes) in era.pages {
            self.durable.put(page, bytes);
        }
        self.durable.set_len(era.truncated_to);
    }

    pub fn sync(&mut self) {
        for era in std::mem::take(&mut self.sealed) {
            self.write_back(era);
        }
        // Only dirty pages: one that an earlier failed sync marked clean stays lost.
        for page in std::mem::take(&mut self.dirty) {
            self.durable.put(page, self.current.page(page));
        }
        self.written_back.clear();
        self.durable.set_len(self.current.len);
    }

    /// What Linux does when writing back fails: some pages may have arrived, the others are marked clean.
    /// Reads still see them, the next sync has nothing to write and says that all is well.
    pub fn fail_sync(&mut self, rng: &mut StdRng) {
        self.lay_written_back(rng);
        for era in std::mem::take(&mut self.sealed) {
            lay(&mut self.durable, era.pages, era.len, Unsynced::Random, rng);
            self.durable.set_len(era.truncated_to);
        }
        let dirty = self.take_dirty();
        lay(&mut self.durable, dirty, self.current.len, Unsynced::Random, rng);
    }

    fn lay_written_back(&mut self, rng: &mut StdRng) {
        for (page, bytes) in std::mem::take(&mut self.written_back) {
            if rng.random_bool(0.5) {
                self.durable.put(page, bytes);
            }
        }
    }

    fn take_dirty(&mut self) -> BTreeMap<u64, Option<Page>> {
        let dirty = std::mem::take(&mut self.dirty).into_iter();
        dirty.map(|page| (page, self.current.page(page))).collect()
    }

    pub fn power_loss(&mut self, unsynced: Unsynced, rng: &mut StdRng) {
        if unsynced == Unsynced::Random {
            self.lay_written_back(rng);
        }
        self.written_back.clear();
        let mut eras = std::mem::take(&mut self.sealed);
        // The last era ends with no truncation.
        eras.push(Era { pages: self.take_dirty(), len: self.current.len, truncated_to: u64::MAX });
        let last_surviving = match unsynced {
            Unsynced::Lost => 0,
            Unsynced::Kept => eras.len() - 1,
            Unsynced::Random => rng.random_range(0..eras.len()),
        };
        let mut in_place = u64::MAX;
        for (i, era) in eras.into_iter().enumerate() {
            if i <= last_surviving {
                lay(&mut self.durable, era.pages, era.len, unsynced, rng);
                if i < last_surviving {
                    self.durable.set_len(era.truncated_to);
                } else {
                    in_place = era.truncated_to;
                }
                continue;
            }
            // The truncation is lost, but pages that it left to the file may have been rewritten in place.
            for (page, bytes) in era.pages {
                if page.saturating_mul(PAGE) < in_place
                    && unsynced == Unsynced::Random
                    && rng.random_ratio(1, 8)
                {
                    self.durable.put(page, bytes);
                }
            }
            in_place = in_place.min(era.truncated_to);
            self.durable.set_len(self.durable.len);
        }
        self.reserved = 0;
        self.current = self.durable.clone();
    }

    pub fn flip_bit(&mut self, offset: u64, bit: u8) {
        self.current.flip_bit(offset, bit);
        self.durable.flip_bit(offset, bit);
    }
}

/// Lets some pages of an era reach the disk, and some of its growth.
fn lay(
    durable: &mut Image,
    pages: BTreeMap<u64, Option<Page>>,
    len: u64,
    unsynced: Unsynced,
    rng: &mut StdRng,
) {
    for (page, bytes) in pages {
        if unsynced == Unsynced::Random && rng.random_ratio(1, 8) {
            let new = bytes.unwrap_or_else(zeros);
            let mut torn = durable.page(page).unwrap_or_else(zeros);
            for sector in (0..PAGE as usize).step_by(SECTOR) {
                if rng.random_bool(0.5) {
                    Arc::make_mut(&mut torn)[sector..sector + SECTOR]
                        .copy_from_slice(&new[sector..sector + SECTOR]);
                }
            }
            durable.put(page, Some(torn));
        } else if unsynced.keeps(rng) {
            durable.put(page, bytes);
        }
    }
    let old = durable.len;
    let kept = match unsynced {
        Unsynced::Lost => old,
        Unsynced::Kept => len,
        Unsynced::Random if len <= old => old,
        Unsynced::Random => match rng.random_range(0..3) {
            0 => old,
            1 => len,
            _ => rng.random_range(old..=len),
        },
    };
    durable.set_len(kept);
}
