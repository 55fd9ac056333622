//! `range`: of each topic, consecutive partitions to each member; the first members get one more. Topics
//! with equally many partitions and subscribers are split alike (co-partitioning).

use super::*;

#[derive(Clone, Copy, Debug, Default)]
pub struct Range;

impl Assignor for Range {
    fn name(&self) -> &'static str {
        "range"
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
        for (topic, places) in subscribers(partitions_per_topic, &ordered) {
            let partitions = partitions_per_topic[topic].max(0) as usize;
            let (each, more) = (partitions / places.len(), partitions % places.len());
            let mut next = 0;
            for (nth, place) in places.into_iter().enumerate() {
                let end = next + each + usize::from(nth < more);
                let mine = assignments.get_mut(ordered[place].0).expect("every member has an entry");
                mine.extend((next..end).map(|partition| (topic.to_owned(), partition as i32)));
                next = end;
            }
        }
        assignments
    }
}
