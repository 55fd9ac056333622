//! `range`: each topic is cut into as many ranges as it has subscribers, in the order of the partitions and
//! of the members; the first ranges are one longer where it does not divide. Topics with equally many
//! partitions and the same subscribers are cut alike, so equal keys meet at the same member.
//!
//! The members' order: static ones by instance id, then the others by member id; so a restarted static
//! member gets the same ranges.

use super::{Assignee, Problem};
use std::collections::BTreeMap;
use std::sync::Arc;
use strandline_metadata::Partitions;
use strandline_record::{PartitionId, TopicPartition};

pub fn assign(problem: &Problem) -> BTreeMap<Arc<str>, Partitions> {
    let mut order: Vec<(&Arc<str>, &Assignee)> = problem.members.iter().collect();
    order.sort_by_key(|(id, member)| {
        (member.instance_id.is_none(), member.instance_id.clone(), (*id).clone())
    });
    let mut assigned: Vec<Partitions> = vec![Partitions::default(); order.len()];
    for (topic, partitions) in &problem.topics {
        let subscribers: Vec<usize> =
            (0..order.len()).filter(|n| order[*n].1.subscribed.contains(topic)).collect();
        let Ok(count) = i32::try_from(subscribers.len()) else { continue };
        if count == 0 {
            continue;
        }
        let (each, longer) = (partitions / count, partitions % count);
        let mut next = 0;
        for (place, member) in (0..count).zip(subscribers) {
            let end = next + each + i32::from(place < longer);
            assigned[member]
                .extend((next..end).map(|n| TopicPartition { topic: *topic, partition: PartitionId(n) }));
            next = end;
        }
    }
    order.into_iter().map(|(id, _)| id.clone()).zip(assigned).collect()
}
