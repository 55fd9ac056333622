//! Unclean elections: only where the topic allows them, and only after the partition has been without leader
//! for a while (a member of ISR or ELR may be about to come back with everything).

use super::{Controller, Effect, Subject, propose_all};
use strandline_metadata::{Command, Election, Image, TopicSettings};
use strandline_record::BrokerId;

impl Controller {
    pub(super) fn elect_unclean(&mut self, image: &Image, now_ms: u64, effects: &mut Vec<Effect>) {
        let mut commands = vec![];
        for (&tp, &since_ms) in &self.index.leaderless {
            if commands.len() == self.config.balance_batch {
                break;
            }
            if now_ms.saturating_sub(since_ms) < self.config.unclean_after_ms {
                continue;
            }
            let (Some(partition), Some(topic)) = (image.partition(tp), image.topics.get(&tp.topic)) else {
                continue;
            };
            let settings = TopicSettings::from_configs(&topic.configs, partition.target_replication());
            let alive = |id: &BrokerId| image.broker(*id).is_some_and(|broker| !broker.fenced);
            let clean = partition.isr.iter().chain(&partition.elr).any(alive);
            if settings.unclean_leader_election
                && !clean
                && partition.replicas.iter().any(alive)
                && self.proposals.is_due(Subject::Leader(tp), now_ms)
            {
                commands.push(Command::ElectLeader { tp, kind: Election::Unclean });
            }
        }
        propose_all(commands, effects);
    }
}
