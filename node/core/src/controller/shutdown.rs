//! Controlled shutdown: a broker that says it is going gives up leadership first, partition by partition, to
//! members of the ISR; then it is fenced, and then it may go. A partition with no other member in the ISR
//! cannot be handed over: it waits, leaderless, for this broker to come back (it is then in the ELR).

use super::{Controller, Effect, Subject, propose_all};
use strandline_metadata::{Command, Election, Image};
use strandline_record::BrokerId;

impl Controller {
    pub(super) fn hand_over(&mut self, id: BrokerId, image: &Image, now_ms: u64, effects: &mut Vec<Effect>) {
        let mut can_move = false;
        let mut commands = vec![];
        for tp in self.index.led_by(id) {
            let Some(partition) = image.partition(tp) else { continue };
            let can_lead =
                |to: &BrokerId| *to != id && partition.isr.contains(to) && self.may_lead(*to, image);
            let Some(&to) = partition.replicas.iter().find(|to| can_lead(to)) else { continue };
            can_move = true;
            if commands.len() == self.config.hand_over_batch {
                break;
            }
            if self.proposals.is_due(Subject::Leader(tp), now_ms) {
                commands.push(Command::ElectLeader { tp, kind: Election::To(to) });
            }
        }
        propose_all(commands, effects);
        let broker = image.broker(id).filter(|broker| !broker.fenced);
        if let Some(broker) = broker
            && !can_move
            && self.proposals.is_due(Subject::Fence(id), now_ms)
        {
            effects.push(Effect::Propose(Command::FenceBroker { id, epoch: broker.epoch }));
        }
    }
}
