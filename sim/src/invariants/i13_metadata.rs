//! I13: each broker's image is a prefix of the Raft order. From HAZARDS.md (hazards 16, 17, 18, 20, 24): a snapshot or
//! a state that was applied half, twice or out of order shows as another content at the same index.
//!
//! Looks at: the image of every node after each step. Two images of one index are equal, in this life and any other;
//! within a life the index does not go back.
//!
//! Sound, because applying is deterministic and the index counts every entry; a node that restarts begins at an older
//! index and comes by the same contents again.

use super::{Check, Invariant, Observation, named};
use crate::observe::ImageView;
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

named!("I13-metadata");

/// Images kept whole, so that a violation can say what differs; of older ones only a hash is left.
const KEPT: usize = 512;

#[derive(Default)]
pub struct Metadata {
    shown: BTreeMap<u64, (u64, Arc<ImageView>)>,
    /// Index → hash, and who showed it first when.
    hashes: BTreeMap<u64, (u64, u64, u64)>,
    images: BTreeMap<u64, Arc<ImageView>>,
}

fn hash_of(image: &ImageView) -> u64 {
    let mut hasher = DefaultHasher::new();
    image.hash(&mut hasher);
    hasher.finish()
}

/// The first entries that differ.
fn differing<K: Ord + Debug, V: PartialEq + Debug>(one: &BTreeMap<K, V>, other: &BTreeMap<K, V>) -> String {
    let keys = one.keys().chain(other.keys().filter(|key| !one.contains_key(key)));
    let differs = keys.filter(|key| one.get(key) != other.get(key));
    let told = differs.take(3).map(|key| format!("{key:?}: {:?} and {:?}; ", one.get(key), other.get(key)));
    told.collect()
}

impl Metadata {
    fn compare(&mut self, node: u64, image: &Arc<ImageView>, now_us: u64) -> Check {
        let hash = hash_of(image);
        let (known, first, at_us) = *self.hashes.entry(image.index).or_insert((hash, node, now_us));
        if known == hash {
            self.images.entry(image.index).or_insert_with(|| image.clone());
            if self.images.len() > KEPT {
                self.images.pop_first();
            }
            return Ok(());
        }
        let what = self.images.get(&image.index).map_or("what differs is not kept".to_owned(), |other| {
            [
                differing(&other.brokers, &image.brokers),
                differing(&other.partitions, &image.partitions),
                differing(&other.groups, &image.groups),
                differing(&other.offsets, &image.offsets),
            ]
            .concat()
        });
        violated(format!(
            "index {}: node {first} (at {at_us} µs) and node {node} have different images: {what}",
            image.index
        ))
    }
}

impl Invariant for Metadata {
    fn name(&self) -> &'static str {
        NAME
    }

    fn observe(&mut self, seen: &Observation<'_>) -> Check {
        for (node, view) in seen.nodes {
            let before = self.shown.get(node).filter(|before| before.0 == view.life);
            if let Some((_, image)) = before {
                if Arc::ptr_eq(image, &view.image) {
                    continue;
                }
                if view.image.index < image.index {
                    return violated(format!(
                        "node {node} went from index {} back to {}",
                        image.index, view.image.index
                    ));
                }
            }
            self.shown.insert(*node, (view.life, view.image.clone()));
            self.compare(*node, &view.image, seen.now_us)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testkit::{Bench, broken};
    use super::*;

    fn bench() -> Bench {
        let mut bench = Bench::new(|_| Box::new(Metadata::default()));
        bench.agree(|agreed| agreed.isr = [1, 2].into());
        bench.step().unwrap();
        bench
    }

    #[test]
    fn a_node_behind_or_restarted_comes_by_the_same_contents() {
        let mut bench = bench();
        let behind = bench.nodes[&3].image.clone();
        bench.agree(|agreed| agreed.isr = [1].into());
        bench.nodes.get_mut(&3).unwrap().image = behind.clone();
        bench.step().unwrap();
        bench.nodes.get_mut(&1).unwrap().life = 2;
        bench.nodes.get_mut(&1).unwrap().image = Arc::new(ImageView::clone(&behind));
        bench.step().unwrap();
    }

    #[test]
    fn two_contents_at_one_index() {
        let mut bench = bench();
        let mut other = ImageView::clone(&bench.nodes[&2].image);
        other.offsets.insert(("g".into(), super::super::testkit::tp()), 5);
        bench.nodes.get_mut(&2).unwrap().image = Arc::new(other);
        broken(bench.step(), "None and Some(5)");
    }

    #[test]
    fn an_index_that_goes_back() {
        let mut bench = bench();
        let old = bench.nodes[&1].image.clone();
        bench.agree(|agreed| agreed.isr = [1].into());
        bench.step().unwrap();
        bench.nodes.get_mut(&2).unwrap().image = old;
        broken(bench.step(), "node 2 went from index 12 back to 11");
    }
}
