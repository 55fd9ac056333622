//! `roundrobin`: all partitions of all topics in order, one to each member in turn; a member that does not
//! subscribe to the topic is passed over.

use super::*;

#[derive(Clone, Copy, Debug, Default)]
pub struct RoundRobin;

impl Assignor for RoundRobin {
    fn name(&self) -> &'static str {
        "roundrobin"
    }

    fn protocol(&self) -> RebalanceProtocol {
        RebalanceProtocol::Eager
    }

    fn assign(
        &self,
        partitions_per_topic: &BTreeMap<String, i32>,
        members: &BTreeMap<String, Subscription>,
    ) -> Assignments {
        let ordered = in_order(members);
        let mut assignments = nothing(members);
        let mut turn = 0;
        for (topic, places) in subscribers(partitions_per_topic, &ordered) {
            for partition in 0..partitions_per_topic[topic] {
                // The first subscriber at or after whose turn it is, around the circle.
                let place = places[places.partition_point(|place| *place < turn) % places.len()];
                turn = (place + 1) % ordered.len();
                let mine = assignments.get_mut(ordered[place].0).expect("every member has an entry");
                mine.push((topic.to_owned(), partition));
            }
        }
        assignments
    }
}
