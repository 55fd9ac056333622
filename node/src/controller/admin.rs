//! What administrators ask for, on whichever node they ask: decided from the image, proposed to Raft.

use super::Controller;
use crate::error::ServeError;
use crate::removal;
use crate::session::peer_address;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use strandline_core::controller::placement::{self, PlacementError};
use strandline_core::controller::reassignment::{self, DrainProgress};
use strandline_metadata::quotas::{self, QuotaEntity};
use strandline_metadata::{Command, Election, Image, Rejection, Response, Topic, TopicConfigs, configs};
use strandline_record::{BrokerId, PartitionId, TopicId, TopicPartition};
use strandline_wire::peer::ForgetRequest;

const DEADLINE: Duration = Duration::from_secs(15);
const DISMISS_DEADLINE: Duration = Duration::from_secs(2);
/// Partitions that one request may create: one Raft entry.
const MAX_NEW_PARTITIONS: i32 = 10_000;
const DRAIN_LOOK: Duration = Duration::from_millis(200);

/// A topic as it was created.
#[derive(Clone, Debug)]
pub struct Created {
    pub id: TopicId,
    pub partitions: i32,
    pub replication: i32,
    /// Everything that was set, this node's defaults included.
    pub configs: TopicConfigs,
}

pub struct NewTopic {
    pub name: String,
    /// `None`: the default.
    pub partitions: Option<i32>,
    /// `None`: the default, shrunk to the live brokers.
    pub replication: Option<i32>,
    /// Replicas of each partition, where somebody has chosen them; then the two numbers follow from it.
    pub assignments: Option<Vec<Vec<BrokerId>>>,
    pub configs: BTreeMap<String, String>,
    /// Say what would be done, and do nothing.
    pub validate_only: bool,
}

impl Controller {
    pub async fn create_topic(&self, new: NewTopic) -> Result<Created, ServeError> {
        let image = self.context.image();
        let config = &self.context.config;
        let live = image.brokers.values().filter(|b| !b.fenced && !b.draining).count();
        let chosen = new.assignments.as_deref();
        let partitions = match chosen {
            Some(chosen) => i32::try_from(chosen.len()).unwrap_or(i32::MAX),
            None => new.partitions.unwrap_or(config.num_partitions),
        };
        if !(1..=MAX_NEW_PARTITIONS).contains(&partitions) {
            let why =
                format!("a topic is created with 1 to {MAX_NEW_PARTITIONS} partitions, not {partitions}");
            return Err(ServeError::InvalidPartitions(why));
        }
        let replication = match chosen.map(|chosen| chosen[0].len() as i32).or(new.replication) {
            Some(asked) if asked < 1 => {
                return Err(ServeError::InvalidReplication(format!(
                    "{asked} replicas: at least 1 is needed"
                )));
            }
            Some(asked) => asked,
            None => (config.default_replication_factor as usize).min(live.max(1)) as i32,
        };
        let mut settings: TopicConfigs = config
            .topic_defaults(replication as u32)
            .into_iter()
            .map(|(key, value)| (Arc::from(key), Arc::from(value)))
            .collect();
        settings.extend(new.configs.iter().map(|(k, v)| (Arc::from(k.as_str()), Arc::from(v.as_str()))));
        configs::validate(&settings).map_err(ServeError::Rejected)?;
        check_min_insync(settings.get(configs::MIN_INSYNC_REPLICAS), replication as usize)?;
        if image.topic_by_name(&new.name).is_some() {
            return Err(ServeError::Rejected(Rejection::TopicExists(new.name.as_str().into())));
        }
        let assignments = match new.assignments {
            Some(chosen) => chosen,
            None => {
                let seed = self.context.random_u64();
                placement::place(&image, None, partitions as usize, replication as usize, seed)
                    .map_err(placement_error)?
            }
        };
        let id = TopicId(self.context.fresh_uuid());
        if !new.validate_only {
            let command = Command::CreateTopic {
                id,
                name: new.name.as_str().into(),
                assignments,
                configs: settings.clone(),
                now_ms: self.context.env.wall_clock_ms(),
            };
            self.context.propose(command, DEADLINE).await?;
            self.see_own_change().await;
        }
        Ok(Created { id, partitions, replication, configs: settings })
    }

    fn topic<'a>(&self, image: &'a Image, name: &str) -> Result<&'a Arc<Topic>, ServeError> {
        image.topic_by_name(name).ok_or_else(|| ServeError::UnknownTopic(name.to_owned()))
    }

    pub async fn delete_topic(&self, name: &str) -> Result<(), ServeError> {
        self.context.linearize().await?;
        let image = self.context.image();
        let id = self.topic(&image, name)?.id;
        self.propose_and_see(Command::DeleteTopic { id }).await
    }

    /// Raises the number of partitions to `total`. `chosen`: replicas of each new one.
    pub async fn add_partitions(
        &self,
        name: &str,
        total: i32,
        chosen: Option<Vec<Vec<BrokerId>>>,
        validate_only: bool,
    ) -> Result<(), ServeError> {
        self.context.linearize().await?;
        let image = self.context.image();
        let topic = self.topic(&image, name)?;
        let more = total.checked_sub(topic.partitions).unwrap_or(0);
        if more <= 0 || more > MAX_NEW_PARTITIONS {
            let why = match more <= 0 {
                true => {
                    format!("the topic has {} partitions; partitions can only be added", topic.partitions)
                }
                false => format!("at most {MAX_NEW_PARTITIONS} partitions are added at once, not {more}"),
            };
            return Err(ServeError::InvalidPartitions(why));
        }
        let first = TopicPartition { topic: topic.id, partition: PartitionId(0) };
        let replication = image.partition(first).map_or(1, |p| p.target_replication());
        let assignments = match chosen {
            Some(chosen) if chosen.len() != more as usize => {
                let why = format!("{more} partitions are new, {} have an assignment", chosen.len());
                return Err(ServeError::Rejected(Rejection::InvalidReplicas(why)));
            }
            Some(chosen) => chosen,
            None => {
                let seed = self.context.random_u64();
                placement::place(&image, Some(topic.id), more as usize, replication, seed)
                    .map_err(placement_error)?
            }
        };
        if validate_only {
            return Ok(());
        }
        let command = Command::AddPartitions { topic: topic.id, expected: topic.partitions, assignments };
        self.propose_and_see(command).await
    }

    pub async fn alter_topic(
        &self,
        name: &str,
        set: BTreeMap<String, String>,
        unset: Vec<String>,
        validate_only: bool,
    ) -> Result<(), ServeError> {
        self.context.linearize().await?;
        let image = self.context.image();
        let known = self.topic(&image, name)?;
        let topic = known.id;
        let first = TopicPartition { topic, partition: PartitionId(0) };
        let replication = image.partition(first).map_or(1, |p| p.target_replication());
        check_min_insync(set.get(configs::MIN_INSYNC_REPLICAS), replication)?;
        let set: BTreeMap<Arc<str>, Arc<str>> =
            set.into_iter().map(|(k, v)| (Arc::from(k), Arc::from(v))).collect();
        let unset: BTreeSet<Arc<str>> = unset.into_iter().map(Arc::from).collect();
        if validate_only {
            return check_alteration(known, &set, &unset);
        }
        self.propose_and_see(Command::AlterTopicConfigs { topic, set, unset }).await
    }

    pub async fn elect_leader(&self, tp: TopicPartition, kind: Election) -> Result<(), ServeError> {
        self.propose_and_see(Command::ElectLeader { tp, kind }).await
    }

    /// Sets the wanted replicas (`None` cancels); the controller carries it out.
    pub async fn reassign(
        &self,
        tp: TopicPartition,
        target: Option<Vec<BrokerId>>,
    ) -> Result<(), ServeError> {
        self.context.linearize().await?;
        let image = self.context.image();
        let command = match target {
            Some(target) => {
                let leaving = |id: &&BrokerId| image.broker(**id).is_some_and(|broker| broker.draining);
                if let Some(leaving) = target.iter().find(leaving) {
                    let why = format!("node {leaving} is being removed");
                    return Err(ServeError::Rejected(Rejection::InvalidReplicas(why)));
                }
                Command::SetReassignment { tp, target: Some(target) }
            }
            None => {
                let agreed = image.partition(tp).ok_or(ServeError::UnknownPartition)?;
                reassignment::cancel(tp, agreed)
            }
        };
        self.propose_and_see(command).await
    }

    pub async fn allocate_producer_ids(&self, count: u32) -> Result<i64, ServeError> {
        match self.context.propose(Command::AllocateProducerIds { count }, DEADLINE).await? {
            Response::ProducerIds { first, .. } => Ok(first),
            other => Err(ServeError::ProposalUnknown(format!("unexpected answer {other:?}"))),
        }
    }

    /// Sets and removes quotas of a user, a client id, or both.
    pub async fn alter_quotas(
        &self,
        entity: QuotaEntity,
        changes: BTreeMap<Arc<str>, Option<u64>>,
        validate_only: bool,
    ) -> Result<(), ServeError> {
        quotas::check(&entity, &changes).map_err(ServeError::Rejected)?;
        if validate_only {
            return Ok(());
        }
        self.propose_and_see(Command::AlterQuotas { entity, changes }).await
    }

    /// Proposes, and waits until this node's own image shows it.
    async fn propose_and_see(&self, command: Command) -> Result<(), ServeError> {
        self.context.propose(command, DEADLINE).await?;
        self.see_own_change().await;
        Ok(())
    }

    /// Whoever asks this node next should find what has just been changed. The change has been made either way.
    async fn see_own_change(&self) {
        if let Err(error) = self.context.linearize().await {
            tracing::debug!(%error, "this node may lag behind a change that it has just made");
        }
    }

    // ---- removing a node ----

    /// Marks the node as leaving: its replicas move away and it gets no leadership.
    pub async fn begin_removal(&self, id: BrokerId) -> Result<(), ServeError> {
        self.context.linearize().await?;
        let image = self.context.image();
        let Some(broker) = image.broker(id) else {
            // A removal that was interrupted at its last step goes on there.
            return match self.in_raft(id) {
                true => Ok(()),
                false => Err(ServeError::Rejected(Rejection::UnknownBroker(id))),
            };
        };
        let others = image.brokers.values().filter(|b| b.id != id && !b.fenced && !b.draining).count();
        if others == 0 {
            return Err(ServeError::InvalidRequest(
                "no other live node could take over this node's data; start one first".to_owned(),
            ));
        }
        if broker.draining {
            return Ok(());
        }
        self.propose_and_see(Command::SetDraining { id, draining: true }).await
    }

    /// How far the removal has come, after a short wait.
    pub async fn removal_progress(&self, id: BrokerId) -> DrainProgress {
        tokio::time::sleep(DRAIN_LOOK).await;
        reassignment::drain_progress(&self.context.image(), id)
    }

    /// Takes a drained node out of the cluster: fenced, out of Raft, forgotten.
    pub async fn finish_removal(&self, id: BrokerId) -> Result<(), ServeError> {
        let mut unregistered = false;
        loop {
            if unregistered && id == self.context.id {
                // Nobody tells this node what becomes of it, so it asks the others whether Raft has forgotten it, too.
                if removal::is_forgotten(&self.context).await {
                    return Ok(());
                }
                tokio::time::sleep(DRAIN_LOOK).await;
                continue;
            }
            self.context.linearize().await?;
            let image = self.context.image();
            let Some(broker) = image.broker(id) else {
                unregistered = true;
                // The controller takes a forgotten broker out of Raft.
                if id != self.context.id && !self.in_raft(id) {
                    return Ok(());
                }
                self.dismiss_at_controller(id).await;
                tokio::time::sleep(DRAIN_LOOK).await;
                continue;
            };
            if self.context.raft.voters().contains_key(&id.0) && self.context.raft.voters().len() > 1 {
                // The controller replaces a draining voter by another member, or shrinks the set.
                tokio::time::sleep(DRAIN_LOOK).await;
                continue;
            }
            // In one step: a broker that still beats would be unfenced in between.
            let fence = Command::FenceBroker { id, epoch: broker.epoch };
            let both = Command::Batch(vec![fence, Command::UnregisterBroker { id }]);
            match self.context.propose(both, DEADLINE).await? {
                Response::Batch(answers) => {
                    if let Some(Response::Rejected(rejection)) = answers.into_iter().nth(1) {
                        return Err(ServeError::Rejected(rejection));
                    }
                    unregistered = true;
                    if id != self.context.id {
                        self.see_own_change().await;
                    }
                }
                other => return Err(ServeError::ProposalUnknown(format!("unexpected answer {other:?}"))),
            }
        }
    }

    /// One that never registered would be waited for otherwise. Lost ones are said again.
    async fn dismiss_at_controller(&self, id: BrokerId) {
        let Some((leader, _)) = self.context.raft.leader() else { return };
        if leader == self.context.id.0 {
            self.dismiss(id);
            return;
        }
        let Some(address) = peer_address(&self.context, leader) else { return };
        let cluster_id = self.context.image().cluster_id.map(|id| id.to_string()).unwrap_or_default();
        let told = async {
            self.context.peers.client(&address)?.forget(ForgetRequest { broker_id: id.0, cluster_id }).await
        };
        match tokio::time::timeout(DISMISS_DEADLINE, told).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, leader, "the controller was not told to forget a member")
            }
            Err(_) => tracing::debug!(leader, "the controller did not hear of a member to forget in time"),
        }
    }

    fn in_raft(&self, id: BrokerId) -> bool {
        let membership = self.context.raft.membership();
        membership.voters.contains(&id.0) || membership.learners.contains(&id.0)
    }
}

/// What `apply` would say of a change.
fn check_alteration(
    topic: &Topic,
    set: &BTreeMap<Arc<str>, Arc<str>>,
    unset: &BTreeSet<Arc<str>>,
) -> Result<(), ServeError> {
    strandline_metadata::machine::altered_configs(&topic.configs, set, unset)
        .map(|_| ())
        .map_err(ServeError::Rejected)
}

/// With a minimum above the number of replicas no write could ever succeed.
fn check_min_insync(value: Option<&impl AsRef<str>>, replicas: usize) -> Result<(), ServeError> {
    match value.and_then(|text| text.as_ref().parse::<usize>().ok()) {
        Some(min) if min > replicas => Err(ServeError::Rejected(Rejection::InvalidConfig {
            key: configs::MIN_INSYNC_REPLICAS.to_owned(),
            reason: format!(
                "{min} is more than the topic has replicas ({replicas}): nothing could be written"
            ),
        })),
        _ => Ok(()),
    }
}

fn placement_error(error: PlacementError) -> ServeError {
    match error {
        PlacementError::NotEnoughBrokers { .. } => ServeError::InvalidReplication(error.to_string()),
        PlacementError::Nothing => ServeError::InvalidPartitions(error.to_string()),
    }
}
