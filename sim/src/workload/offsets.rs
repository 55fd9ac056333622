//! A watcher of what others have done: committed offsets and the ends of partitions, asked again and again, so that
//! the oracle can see them go back; and who deletes records now and then.

use super::{Bell, outcome_of, tp_of};
use crate::history::{Outcome, Tp, What};
use crate::world::ClientWorld;
use rand::RngExt;
use std::sync::Arc;
use std::time::Duration;
use strandline_client::{OffsetSpec, TopicPartition};

#[derive(Clone, Debug)]
pub struct WatcherPlan {
    pub bootstrap: String,
    pub groups: Vec<String>,
    pub topics: Vec<(String, i32)>,
    /// Topics whose old records are deleted now and then.
    pub deletes_from: Vec<(String, i32)>,
}

pub async fn watch(world: ClientWorld, plan: WatcherPlan, bell: Bell) {
    let mut rng = world.seed.fork("watcher").rng();
    let session = world.recorder.new_session();
    let client = world.sdk(&plan.bootstrap).build().expect("the plan's options are usable");
    let all: Vec<TopicPartition> = plan
        .topics
        .iter()
        .flat_map(|(topic, count)| (0..*count).map(|n| TopicPartition::new(topic.as_str(), n)))
        .collect();
    while !bell.has_rung() {
        for group in &plan.groups {
            let asked_us = world.recorder.now_us();
            match client.admin().group_offsets(group).await {
                Ok(offsets) => {
                    for tp in &all {
                        let offset = offsets.get(tp).map(|committed| committed.position.offset);
                        let what = What::OffsetRead {
                            session,
                            group: Arc::from(group.as_str()),
                            tp: tp_of(tp),
                            offset,
                            asked_us,
                        };
                        world.recorder.record(&world.name, what);
                    }
                }
                Err(error) => {
                    world.recorder.note(&world.name, format_args!("offsets of {group}: {error}"));
                }
            }
        }
        let tp = all[rng.random_range(0..all.len())].clone();
        let asked_us = world.recorder.now_us();
        let latest = rng.random_bool(0.7);
        let spec = if latest { OffsetSpec::Latest } else { OffsetSpec::Earliest };
        match client.admin().list_offsets([(tp.clone(), spec)]).await {
            Ok(listed) => {
                let offset = listed[&tp].offset.unwrap_or(0);
                world
                    .recorder
                    .record(&world.name, What::EndRead { session, tp: tp_of(&tp), latest, offset, asked_us });
            }
            Err(error) => world.recorder.note(&world.name, format_args!("offset of {tp}: {error}")),
        }
        if !plan.deletes_from.is_empty() && rng.random_bool(0.05) {
            let (topic, count) = &plan.deletes_from[rng.random_range(0..plan.deletes_from.len())];
            let tp = TopicPartition::new(topic.as_str(), rng.random_range(0..*count));
            delete_some(&world, session, &client, &tp, &mut rng).await;
        }
        tokio::time::sleep(Duration::from_millis(rng.random_range(50..400))).await;
    }
    world.recorder.record(&world.name, What::Gone { session });
}

async fn delete_some(
    world: &ClientWorld,
    session: crate::history::Session,
    client: &strandline_client::Client,
    tp: &TopicPartition,
    rng: &mut rand::rngs::StdRng,
) {
    let admin = client.admin();
    let both = [(tp.clone(), OffsetSpec::Earliest), (tp.clone(), OffsetSpec::Latest)];
    let mut places = Vec::new();
    for one in both {
        match admin.list_offsets([one]).await {
            Ok(listed) => places.push(listed[tp].offset.unwrap_or(0)),
            Err(_) => return,
        }
    }
    let before = places[0] + (places[1] - places[0]).max(0) * rng.random_range(0..50) / 100;
    let delete = world.recorder.new_call();
    let tp_named: Tp = tp_of(tp);
    world.recorder.record(&world.name, What::DeleteRecords { session, delete, tp: tp_named, before });
    let outcome = match admin.delete_records(tp, Some(before)).await {
        Ok(start) => Outcome::Acknowledged(start),
        Err(error) => outcome_of(&error),
    };
    world.recorder.record(&world.name, What::DeletedRecords { session, delete, outcome });
}
