//! How far the high watermark may advance.
//!
//! HW := max(HW, min over the maximal ISR of (own F, followers' A)), and only while the committed ISR is at
//! least `min.insync.replicas`. A member of which nothing is known in this epoch, under its current broker
//! epoch, holds the high watermark where it is.

use strandline_record::Offset;

/// What the high watermark depends on, all of one moment.
pub(super) struct Inputs<I> {
    pub current: Offset,
    /// The leader's own counting end (F, or the log end where [`super::Durability::Appended`]).
    pub own: Offset,
    /// Acknowledged ends of every *other* member of the maximal ISR; `None` where there is none that counts.
    pub others: I,
    pub committed_isr: usize,
    pub min_insync: usize,
}

/// The high watermark that follows; never below the current one.
pub(super) fn advance(inputs: Inputs<impl Iterator<Item = Option<Offset>>>) -> Offset {
    let Inputs { current, own, others, committed_isr, min_insync } = inputs;
    if committed_isr < min_insync {
        return current;
    }
    let mut end = own;
    for acknowledged in others {
        match acknowledged {
            Some(acknowledged) => end = end.min(acknowledged),
            None => return current,
        }
    }
    end.max(current)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(current: i64, own: i64, others: &[Option<i64>], committed_isr: usize, min_insync: usize) -> i64 {
        let others = others.iter().map(|end| end.map(Offset));
        advance(Inputs { current: Offset(current), own: Offset(own), others, committed_isr, min_insync })
            .get()
    }

    #[test]
    fn it_is_the_smallest_acknowledged_end() {
        assert_eq!(at(0, 9, &[Some(7), Some(8)], 3, 2), 7);
        assert_eq!(at(0, 5, &[Some(7), Some(8)], 3, 2), 5);
        assert_eq!(at(0, 5, &[], 1, 1), 5);
    }

    #[test]
    fn it_never_decreases() {
        assert_eq!(at(6, 9, &[Some(4)], 2, 2), 6);
    }

    #[test]
    fn a_member_without_an_acknowledgement_holds_it() {
        assert_eq!(at(3, 9, &[Some(7), None], 3, 2), 3);
    }

    #[test]
    fn too_few_in_sync_replicas_hold_it() {
        assert_eq!(at(3, 9, &[Some(9)], 1, 2), 3);
    }
}
