//! A member of a consumer group: reads what it is assigned, takes its time, commits what it has processed, and puts
//! on record what it owned when.

use super::read::{read_of, record_error};
use super::{Bell, outcome_of, tp_of};
use crate::history::{Outcome, Session, Tp, What};
use crate::world::{ClientWorld, Recorder};
use rand::RngExt;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use strandline_client::{
    Assignor, AutoOffsetReset, ConsumerHandle, OffsetAndMetadata, OffsetSpec, RebalanceListener,
    TopicPartition, async_trait,
};

/// How one member behaves.
#[derive(Clone, Debug)]
pub struct MemberPlan {
    pub bootstrap: String,
    pub group: String,
    pub topics: Vec<String>,
    pub assignor: Assignor,
    /// A static member keeps its partitions over a restart (KIP-345).
    pub instance_id: Option<String>,
    pub session_timeout: Duration,
    /// Mean time that one poll's records take.
    pub work: Duration,
}

/// Puts assignments on record, and commits before partitions are given up.
struct Listener {
    name: Arc<str>,
    recorder: Recorder,
    session: Session,
    group: Arc<str>,
}

fn tps(partitions: &[TopicPartition]) -> Vec<Tp> {
    partitions.iter().map(tp_of).collect()
}

#[async_trait]
impl RebalanceListener for Listener {
    async fn on_revoked(&self, consumer: &ConsumerHandle, partitions: &[TopicPartition]) {
        let positions = partitions.iter().filter_map(|tp| Some((tp.clone(), consumer.position(tp)?)));
        let positions = positions.collect();
        commit(&self.recorder, &self.name, self.session, &self.group, consumer, positions).await;
        let what =
            What::Revoked { session: self.session, group: self.group.clone(), partitions: tps(partitions) };
        self.recorder.record(&self.name, what);
    }

    async fn on_assigned(&self, consumer: &ConsumerHandle, partitions: &[TopicPartition]) {
        let Some((member, generation)) = consumer.membership() else { return };
        let what = What::Assigned {
            session: self.session,
            group: self.group.clone(),
            member: member.into(),
            generation,
            partitions: tps(partitions),
        };
        self.recorder.record(&self.name, what);
    }

    async fn on_lost(&self, _: &ConsumerHandle, partitions: &[TopicPartition]) {
        let what =
            What::Lost { session: self.session, group: self.group.clone(), partitions: tps(partitions) };
        self.recorder.record(&self.name, what);
    }
}

async fn commit(
    recorder: &Recorder,
    name: &str,
    session: Session,
    group: &Arc<str>,
    consumer: &ConsumerHandle,
    positions: BTreeMap<TopicPartition, i64>,
) {
    if positions.is_empty() {
        return;
    }
    let commit = recorder.new_call();
    let generation = consumer.membership().map(|(_, generation)| generation);
    let offsets = positions.iter().map(|(tp, offset)| (tp_of(tp), *offset)).collect();
    recorder.record(name, What::Commit { session, commit, group: group.clone(), generation, offsets });
    let offsets = positions.into_iter().map(|(tp, offset)| (tp, OffsetAndMetadata::new(offset))).collect();
    let outcome = match consumer.commit_offsets(&offsets).await {
        Ok(()) => Outcome::Acknowledged(()),
        Err(error) => outcome_of(&error),
    };
    recorder.record(name, What::Committed { session, commit, outcome });
}

pub async fn join(world: ClientWorld, plan: MemberPlan, bell: Bell) {
    let mut rng = world.seed.fork("member").rng();
    let session = world.recorder.new_session();
    let group: Arc<str> = Arc::from(plan.group.as_str());
    let client = world.sdk(&plan.bootstrap).build().expect("the plan's options are usable");
    let mut builder = client
        .consumer()
        .group(plan.group.as_str())
        .auto_commit(false)
        .auto_offset_reset(AutoOffsetReset::Earliest)
        .session_timeout(plan.session_timeout)
        .heartbeat_interval(plan.session_timeout / 5)
        .assignors([plan.assignor])
        .rebalance_listener(Listener {
            name: world.name.clone(),
            recorder: world.recorder.clone(),
            session,
            group: group.clone(),
        });
    if let Some(instance) = &plan.instance_id {
        builder = builder.group_instance_id(instance.as_str());
    }
    let mut consumer = builder.build().expect("the plan's options are usable");
    consumer.subscribe(plan.topics.iter().map(String::as_str)).expect("a member may subscribe");
    while !bell.has_rung() {
        match consumer.poll(50, Duration::from_millis(500)).await {
            Ok(records) => {
                for record in &records {
                    world.recorder.record(&world.name, read_of(session, record));
                }
                if !records.is_empty() {
                    tokio::time::sleep(plan.work.mul_f64(rng.random_range(0.0..2.0))).await;
                    // What this poll handed out is processed: one past the last of each partition.
                    let positions =
                        records.iter().map(|record| (record.topic_partition(), record.offset + 1)).collect();
                    if rng.random_bool(0.7) {
                        commit(&world.recorder, &world.name, session, &group, &consumer, positions).await;
                    }
                }
            }
            Err(error) => match record_error(&world, session, &error) {
                Some((tp, offset)) => {
                    if consumer.seek(&tp, OffsetSpec::Offset(offset)).is_ok() {
                        let what = What::Position { session, tp: tp_of(&tp), offset };
                        world.recorder.record(&world.name, what);
                    }
                }
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            },
        }
    }
    if let Err(error) = consumer.close().await {
        world.recorder.note(&world.name, format_args!("close: {error}"));
    }
    world.recorder.record(&world.name, What::Gone { session });
}
