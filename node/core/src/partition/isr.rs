//! The in-sync replica set as the leader knows it: what is committed, and what it has asked for and not yet
//! heard the end of.
//!
//! * A removal counts only once committed; an addition counts from the moment it is proposed.
//! * Every proposal that names the current partition epoch stays pending until a partition epoch above the
//!   one it named is seen, in the image or in an answer. A rejection or a lost answer ends nothing: an
//!   earlier copy may still apply.
//! * Hence the maximal ISR is a superset of what the controller may hold at this leader epoch (I9).

use std::collections::BTreeSet;
use strandline_record::{BrokerId, PartitionEpoch};

#[derive(Clone, Debug)]
pub(super) struct Isr {
    committed: BTreeSet<BrokerId>,
    /// The partition epoch that says so.
    epoch: PartitionEpoch,
    pending: Option<Pending>,
}

#[derive(Clone, Debug)]
struct Pending {
    /// Union of what all the pending proposals would add.
    additions: BTreeSet<BrokerId>,
    /// When one was last sent.
    sent_ms: u64,
}

impl Isr {
    pub fn new(committed: BTreeSet<BrokerId>, epoch: PartitionEpoch) -> Self {
        Isr { committed, epoch, pending: None }
    }

    pub fn committed(&self) -> &BTreeSet<BrokerId> {
        &self.committed
    }

    pub fn epoch(&self) -> PartitionEpoch {
        self.epoch
    }

    /// Members of the maximal ISR, each once.
    pub fn maximal(&self) -> impl Iterator<Item = BrokerId> + '_ {
        let additions = self.pending.iter().flat_map(|p| &p.additions);
        self.committed.iter().chain(additions).copied()
    }

    pub fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// A partition epoch seen in the image or in an answer. Ends what is pending if it is above the known
    /// one, and says whether it was.
    pub fn adopt(&mut self, committed: &BTreeSet<BrokerId>, epoch: PartitionEpoch) -> bool {
        if epoch <= self.epoch {
            return false;
        }
        *self = Isr::new(committed.clone(), epoch);
        true
    }

    /// Whether `wanted` should be proposed now: it differs from what is committed and nothing is pending,
    /// or something has been pending for `resend_ms` without a word (then `wanted` may equal the committed
    /// ISR: applying it moves the partition epoch and so ends what is pending).
    pub fn should_propose(&self, wanted: &BTreeSet<BrokerId>, resend_ms: u64, now_ms: u64) -> bool {
        match &self.pending {
            None => *wanted != self.committed,
            Some(pending) => now_ms.saturating_sub(pending.sent_ms) >= resend_ms,
        }
    }

    /// `wanted` is being proposed under the current partition epoch.
    pub fn proposed(&mut self, wanted: &BTreeSet<BrokerId>, now_ms: u64) {
        let added = wanted.difference(&self.committed).copied();
        let pending = self.pending.get_or_insert(Pending { additions: BTreeSet::new(), sent_ms: now_ms });
        pending.additions.extend(added);
        pending.sent_ms = now_ms;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &[u64]) -> BTreeSet<BrokerId> {
        ids.iter().map(|&id| BrokerId(id)).collect()
    }

    fn maximal(isr: &Isr) -> BTreeSet<BrokerId> {
        isr.maximal().collect()
    }

    #[test]
    fn a_proposed_addition_counts_at_once_and_a_proposed_removal_does_not() {
        let mut isr = Isr::new(set(&[1, 2]), PartitionEpoch(5));
        isr.proposed(&set(&[1, 3]), 0);
        assert_eq!(maximal(&isr), set(&[1, 2, 3]));
        assert_eq!(*isr.committed(), set(&[1, 2]));
    }

    #[test]
    fn every_pending_addition_stays_until_a_higher_partition_epoch() {
        let mut isr = Isr::new(set(&[1]), PartitionEpoch(5));
        isr.proposed(&set(&[1, 2]), 0);
        isr.proposed(&set(&[1, 3]), 1);
        isr.proposed(&set(&[1]), 2);
        assert_eq!(maximal(&isr), set(&[1, 2, 3]));
        assert!(!isr.adopt(&set(&[1]), PartitionEpoch(5)));
        assert_eq!(maximal(&isr), set(&[1, 2, 3]));
        assert!(isr.adopt(&set(&[1, 3]), PartitionEpoch(6)));
        assert_eq!(maximal(&isr), set(&[1, 3]));
        assert!(!isr.is_pending());
    }

    #[test]
    fn the_committed_isr_is_proposed_only_to_end_what_is_pending() {
        let mut isr = Isr::new(set(&[1]), PartitionEpoch(5));
        assert!(!isr.should_propose(&set(&[1]), 500, 0));
        assert!(isr.should_propose(&set(&[1, 2]), 500, 0));
        isr.proposed(&set(&[1, 2]), 0);
        assert!(!isr.should_propose(&set(&[1]), 500, 499));
        assert!(isr.should_propose(&set(&[1]), 500, 500));
    }

    #[test]
    fn an_older_partition_epoch_changes_nothing() {
        let mut isr = Isr::new(set(&[1, 2]), PartitionEpoch(5));
        assert!(!isr.adopt(&set(&[1]), PartitionEpoch(4)));
        assert_eq!(*isr.committed(), set(&[1, 2]));
    }
}
