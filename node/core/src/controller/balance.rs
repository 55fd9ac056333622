//! Leadership where it belongs: back to preferred replicas once they have been able to lead for a while, and
//! away from draining brokers. A bounded number at a time, so that clients are not all sent elsewhere at once.

use super::{Controller, Effect, Subject, index::better_leader, propose_all};
use strandline_metadata::{Command, Election, Image};

impl Controller {
    pub(super) fn balance(&mut self, image: &Image, now_ms: u64, effects: &mut Vec<Effect>) {
        let mut commands = vec![];
        for (&tp, &since_ms) in &self.index.misled {
            if commands.len() == self.config.balance_batch {
                break;
            }
            let Some(partition) = image.partition(tp) else { continue };
            let Some(to) = better_leader(image, partition).filter(|&to| self.may_lead(to, image)) else {
                continue;
            };
            // Leadership on a draining broker is moved at once: nothing gets stabler by waiting.
            let leader_drains =
                partition.leader.and_then(|leader| image.broker(leader)).is_some_and(|b| b.draining);
            let stable = now_ms.saturating_sub(since_ms) >= self.config.balance_after_ms;
            if (stable || leader_drains) && self.proposals.is_due(Subject::Leader(tp), now_ms) {
                commands.push(Command::ElectLeader { tp, kind: Election::To(to) });
            }
        }
        propose_all(commands, effects);
    }
}
