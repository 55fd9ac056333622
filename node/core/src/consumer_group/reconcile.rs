//! One step of a member towards its target, taken while it asks (KIP-848's reconciliation).
//!
//! ```text
//!   at its target ──new target takes nothing away──► next epoch, with what is free of the new
//!        │                                              │  ▲ others let go: more of it, same epoch
//!        │ takes something away                         ▼  │
//!        ▼                                           waits for others
//!   revoking, same epoch ──confirmed──► next epoch
//! ```
//!
//! A confirmed revocation always moves the member's epoch, even if a newer target takes more and the member
//! is not there yet. So a commit of it that is still on its way cannot overwrite the next owner's.

use std::sync::Arc;
use strandline_metadata::{ConsumerMember, GroupEpoch, Partitions};
use strandline_record::TopicPartition;

/// What becomes of `member`, which says that it has `owned` (`None`: what it had when it last said).
/// `taken`: another member has this partition, or has not confirmed yet that it gave it up.
pub fn step(
    member: &Arc<ConsumerMember>,
    target_epoch: GroupEpoch,
    owned: Option<&Partitions>,
    taken: impl Fn(&TopicPartition) -> bool,
) -> Arc<ConsumerMember> {
    if member.is_at(target_epoch) {
        return member.clone();
    }
    let still_has = |partitions: &Partitions| {
        !partitions.is_empty() && owned.is_none_or(|owned| owned.intersects(partitions))
    };
    if still_has(&member.revoking) {
        return member.clone();
    }
    let (kept, lost) = member.assigned.split(|tp| member.target.contains(tp));
    let mut next = ConsumerMember::clone(member);
    if still_has(&lost) {
        if !member.revoking.is_empty() {
            // It gave up what an earlier target took, and there is more. That was at least two targets ago, so
            // there is an epoch between its own and this target's to go to.
            assert!(member.epoch.0 < target_epoch.0 - 1, "a target takes from a member once");
            advance(&mut next, GroupEpoch(target_epoch.0 - 1));
        }
        next.assigned = kept;
        next.revoking = lost;
        return Arc::new(next);
    }
    let (new, _) = member.target.split(|tp| kept.contains(tp) || !taken(tp));
    next.assigned = new;
    next.revoking = Partitions::default();
    advance(&mut next, target_epoch);
    if next == **member { member.clone() } else { Arc::new(next) }
}

fn advance(member: &mut ConsumerMember, epoch: GroupEpoch) {
    if member.epoch != epoch {
        member.previous_epoch = member.epoch;
        member.epoch = epoch;
    }
}

/// A member that is away has stopped consuming: what its target takes from it is free at once.
pub fn step_of_absent(member: &Arc<ConsumerMember>) -> Arc<ConsumerMember> {
    let (kept, lost) = member.assigned.split(|tp| member.target.contains(tp));
    if lost.is_empty() && member.revoking.is_empty() {
        return member.clone();
    }
    Arc::new(ConsumerMember {
        assigned: kept,
        revoking: Partitions::default(),
        ..ConsumerMember::clone(member)
    })
}
