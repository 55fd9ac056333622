//! What happened in the cluster: the difference of two views of it. Pure.

use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;
use strandline_client::{PartitionDescription, TopicDescription};

/// Events of one kind in one difference; past it they are counted only.
const EACH: usize = 12;

/// Something that happened, and when this gateway saw it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Event {
    pub(super) t: i64,
    #[serde(flatten)]
    pub(super) what: What,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub(super) enum What {
    /// `joined`, `serving`, `fenced`, `draining`, `removed`: the cluster's word. `silent`, `answering`: what this
    /// gateway sees.
    Node {
        node: u64,
        state: &'static str,
    },
    Controller {
        from: Option<u64>,
        to: Option<u64>,
    },
    Election {
        topic: Arc<str>,
        partition: i32,
        from: Option<u64>,
        to: Option<u64>,
        epoch: i32,
    },
    /// Further elections of the same moment.
    Elections {
        more: usize,
    },
    Isr {
        topic: Arc<str>,
        partition: i32,
        isr: Vec<u64>,
        left: Vec<u64>,
        joined: Vec<u64>,
    },
    Isrs {
        more: usize,
    },
    Topic {
        topic: Arc<str>,
        state: &'static str,
    },
    Topics {
        more: usize,
    },
}

/// Differences by kind, each bounded.
#[derive(Default)]
struct Found {
    topics: Vec<What>,
    elections: Vec<What>,
    isrs: Vec<What>,
}

/// What happened between two views of the topics.
pub(super) fn of_topics(
    before: &BTreeMap<Arc<str>, TopicDescription>,
    now: &BTreeMap<Arc<str>, TopicDescription>,
) -> Vec<What> {
    let mut found = Found::default();
    let topic = |topic: &Arc<str>, state| What::Topic { topic: topic.clone(), state };
    for (name, old) in before {
        match now.get(name) {
            Some(new) if new.id == old.id => found.compare(name, old, new),
            Some(_) => found.topics.push(topic(name, "replaced")),
            None => found.topics.push(topic(name, "deleted")),
        }
    }
    found.topics.extend(now.keys().filter(|name| !before.contains_key(*name)).map(|n| topic(n, "created")));
    let mut all = Vec::new();
    let mut take = |mut some: Vec<What>, rest: fn(usize) -> What| {
        let more = some.len().saturating_sub(EACH);
        some.truncate(EACH);
        all.append(&mut some);
        if more > 0 {
            all.push(rest(more));
        }
    };
    take(found.topics, |more| What::Topics { more });
    take(found.elections, |more| What::Elections { more });
    take(found.isrs, |more| What::Isrs { more });
    all
}

impl Found {
    fn compare(&mut self, name: &Arc<str>, old: &TopicDescription, new: &TopicDescription) {
        for (was, is) in old.partitions.iter().zip(&new.partitions) {
            if is.leader_epoch > was.leader_epoch {
                self.elections.push(What::Election {
                    topic: name.clone(),
                    partition: is.partition,
                    from: was.leader,
                    to: is.leader,
                    epoch: is.leader_epoch,
                });
            }
            let (left, joined) = (missing(&was.isr, &is.isr), missing(&is.isr, &was.isr));
            if !left.is_empty() || !joined.is_empty() {
                let (topic, partition) = (name.clone(), is.partition);
                self.isrs.push(What::Isr { topic, partition, isr: is.isr.clone(), left, joined });
            }
        }
        if new.partitions.len() > old.partitions.len() {
            self.topics.push(What::Topic { topic: name.clone(), state: "widened" });
        }
    }
}

fn missing(of: &[u64], from: &[u64]) -> Vec<u64> {
    of.iter().filter(|id| !from.contains(id)).copied().collect()
}

pub(super) fn is_under_replicated(partition: &PartitionDescription) -> bool {
    partition.isr.len() < partition.replicas.len()
}
