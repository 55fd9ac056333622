//! What the members of a group subscribe to, in terms of the topics that there are.

use super::assignor::{Assignee, Assignor, Problem};
use super::types::ConsumerGroupError;
use crate::group::Fnv1a;
use regex::{Regex, RegexBuilder};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use strandline_metadata::{ConsumerGroup, Image};
use strandline_record::TopicId;

/// Bytes that a compiled regular expression may take.
const REGEX_SIZE_LIMIT: usize = 1 << 20;

/// A topic is subscribed if its whole name matches. The syntax is RE2's, as far as the `regex` crate shares it
/// (neither has back-references or look-around), and matching takes time linear in the name.
pub fn compile(pattern: &str) -> Result<Regex, ConsumerGroupError> {
    let build = |pattern: &str| {
        RegexBuilder::new(pattern)
            .size_limit(REGEX_SIZE_LIMIT)
            .build()
            .map_err(|e| ConsumerGroupError::InvalidRegularExpression(e.to_string()))
    };
    // Alone first: `a)|(b` would be valid between our brackets.
    build(pattern)?;
    build(&format!(r"\A(?:{pattern})\z"))
}

/// What there is to assign in `group`, and the hash of it that [`ConsumerGroup::topics_hash`] keeps.
pub fn resolve(group: &ConsumerGroup, image: &Image) -> (Problem, u64) {
    let mut matches: BTreeMap<&str, BTreeSet<TopicId>> = BTreeMap::new();
    let mut shared: BTreeSet<Arc<BTreeSet<TopicId>>> = BTreeSet::new();
    let mut problem = Problem::default();
    for (id, member) in &group.members {
        let mut subscribed: BTreeSet<TopicId> =
            member.topics.iter().filter_map(|name| image.topic_ids.get(name)).copied().collect();
        if let Some(pattern) = &member.regex {
            subscribed.extend(matches.entry(pattern).or_insert_with(|| matching(pattern, image)).iter());
        }
        let subscribed = shared.get(&subscribed).cloned().unwrap_or_else(|| {
            let subscribed = Arc::new(subscribed);
            shared.insert(subscribed.clone());
            subscribed
        });
        for topic in subscribed.iter().filter_map(|id| image.topics.get(id)) {
            problem.topics.insert(topic.id, topic.partitions);
        }
        let assignee =
            Assignee { instance_id: member.instance_id.clone(), subscribed, previous: member.target.clone() };
        problem.members.insert(id.clone(), assignee);
    }
    let mut hash = Fnv1a::default();
    for (topic, partitions) in &problem.topics {
        hash.add(topic.0.as_bytes());
        hash.add(&partitions.to_le_bytes());
    }
    (problem, hash.get())
}

fn matching(pattern: &str, image: &Image) -> BTreeSet<TopicId> {
    // Checked when the member came; one that another build took matches nothing.
    let Ok(regex) = compile(pattern) else { return BTreeSet::new() };
    image.topic_ids.iter().filter(|(name, _)| regex.is_match(name)).map(|(_, id)| *id).collect()
}

/// The assignor that most members ask for, of those there are; of equally many the one listed first.
pub fn preferred_assignor(group: &ConsumerGroup, offered: &[Assignor]) -> Assignor {
    let votes = |assignor: &Assignor| {
        group.members.values().filter(|m| m.assignor.as_deref() == Some(assignor.name())).count()
    };
    // The last of equal ones is what `max_by_key` takes.
    offered.iter().rev().max_by_key(|assignor| votes(assignor)).copied().unwrap_or(Assignor::Uniform)
}
