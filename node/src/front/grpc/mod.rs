//! The SDK's gRPC service: decodes requests, asks the broker, encodes answers. Problems travel inside the
//! answers as `Error`, so that a client always learns whether to retry and whether it may have happened.

mod convert;
mod fetch;
mod groups;
mod metadata;
mod produce;

use crate::broker::Broker;
use crate::context::Context;
use crate::controller::{Controller, NewTopic};
use crate::error::ServeError;
use crate::group::Groups;
use futures::Stream;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use strandline_metadata::{Election, configs};
use strandline_record::{BrokerId, Offset};
use strandline_wire::v1::strandline_server::Strandline;
use strandline_wire::v1::{self, *};
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::{Request, Response, Status, Streaming};

pub struct GrpcFront {
    pub broker: Arc<Broker>,
    pub groups: Arc<Groups>,
    pub controller: Arc<Controller>,
}

/// How long a question about the cluster's state waits for the metadata leader to confirm the answer.
const CONFIRM_DEADLINE: Duration = Duration::from_secs(1);
type Answer<T> = Result<Response<T>, Status>;
type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// In front of the service: what is done with each call.
pub fn arrives(context: Arc<Context>) -> impl Fn(http::Request<Body>) -> http::Request<Body> + Clone {
    move |request| {
        context.meters.grpc.called(request.uri().path());
        produce::keep_body(request)
    }
}

impl GrpcFront {
    fn context(&self) -> &Arc<Context> {
        self.broker.context()
    }

    fn error(&self, error: &ServeError) -> Option<v1::Error> {
        Some(convert::error(self.context(), error))
    }

    fn admin(&self, result: Result<(), ServeError>) -> Answer<AdminResponse> {
        Ok(Response::new(AdminResponse { error: result.err().and_then(|error| self.error(&error)) }))
    }

    /// Creates what a producer or consumer names and does not exist, where that is allowed.
    async fn auto_create(&self, names: &[String]) {
        for name in names {
            if self.context().image().topic_by_name(name).is_none() {
                let new = NewTopic {
                    name: name.clone(),
                    partitions: None,
                    replication: None,
                    assignments: None,
                    configs: Default::default(),
                    validate_only: false,
                };
                if let Err(error) = self.controller.create_topic(new).await {
                    tracing::debug!(topic = %name, %error, "not created on first use");
                }
            }
        }
    }

    /// Set until this process is registered: before that its image may be of before a restart.
    fn not_ready(&self) -> Option<v1::Error> {
        if self.context().broker_epoch().is_none() {
            return self.error(&ServeError::ClusterNotReady("this node is still starting".to_owned()));
        }
        None
    }
}

fn wanted(value: i32) -> Option<i32> {
    // 0 is what a client sends that leaves the field out; -1 is Kafka's "the default".
    (value != 0 && value != -1).then_some(value)
}

#[tonic::async_trait]
impl Strandline for GrpcFront {
    type ProduceStream = ReceiverStream<Result<ProduceResponse, Status>>;
    type FetchStream = ReceiverStream<Result<FetchResponse, Status>>;
    type RemoveNodeStream = Out<RemoveNodeProgress>;

    async fn produce(&self, mut request: Request<Streaming<ProduceRequest>>) -> Answer<Self::ProduceStream> {
        let body = produce::kept_body(&mut request)?;
        let answers = produce::serve(self.broker.clone(), body);
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn fetch(&self, request: Request<Streaming<FetchRequest>>) -> Answer<Self::FetchStream> {
        let answers = fetch::serve(self.broker.clone(), request.into_inner());
        Ok(Response::new(ReceiverStream::new(answers)))
    }

    async fn list_offsets(&self, request: Request<ListOffsetsRequest>) -> Answer<ListOffsetsResponse> {
        let results = request.into_inner().partitions.into_iter().map(|wanted| {
            let found = convert::topic_partition(&wanted.topic_id, wanted.partition)
                .and_then(|tp| self.broker.partition_or_error(tp))
                .and_then(|p| p.list_offset(wanted.timestamp_ms, convert::epoch_of(wanted.leader_epoch)));
            let blank = ListOffsetsResult {
                topic_id: wanted.topic_id,
                partition: wanted.partition,
                offset: -1,
                timestamp_ms: -1,
                leader_epoch: -1,
                error: None,
            };
            match found {
                Ok((offset, timestamp_ms, epoch)) => ListOffsetsResult {
                    offset: offset.map_or(-1, Offset::get),
                    timestamp_ms,
                    leader_epoch: epoch.0,
                    ..blank
                },
                Err(error) => ListOffsetsResult { error: self.error(&error), ..blank },
            }
        });
        Ok(Response::new(ListOffsetsResponse { partitions: results.collect() }))
    }

    async fn init_producer_id(
        &self,
        request: Request<InitProducerIdRequest>,
    ) -> Answer<InitProducerIdResponse> {
        let request = request.into_inner();
        // A producer that lost its place gets a new epoch under its id; past the last one, a new id (KIP-360).
        if request.producer_id >= 0 && (0..i32::from(i16::MAX) - 1).contains(&request.producer_epoch) {
            return Ok(Response::new(InitProducerIdResponse {
                error: None,
                producer_id: request.producer_id,
                producer_epoch: request.producer_epoch + 1,
            }));
        }
        Ok(Response::new(match self.controller.allocate_producer_ids(1).await {
            Ok(producer_id) => InitProducerIdResponse { error: None, producer_id, producer_epoch: 0 },
            Err(error) => {
                InitProducerIdResponse { error: self.error(&error), producer_id: -1, producer_epoch: -1 }
            }
        }))
    }

    async fn delete_records(&self, request: Request<DeleteRecordsRequest>) -> Answer<DeleteRecordsResponse> {
        let request = request.into_inner();
        let before = (request.before_offset != -1).then_some(Offset(request.before_offset));
        let deleted = convert::topic_partition(&request.topic_id, request.partition)
            .and_then(|tp| self.broker.partition_or_error(tp))
            .and_then(|partition| partition.delete_records(before));
        Ok(Response::new(match deleted {
            Ok(log_start) => DeleteRecordsResponse { error: None, log_start_offset: log_start.0 },
            Err(error) => DeleteRecordsResponse { error: self.error(&error), log_start_offset: -1 },
        }))
    }

    async fn metadata(&self, request: Request<MetadataRequest>) -> Answer<MetadataResponse> {
        let request = request.into_inner();
        if request.allow_auto_create && self.context().config.auto_create_topics_enable {
            self.auto_create(&request.topics).await;
        }
        if self.context().broker_epoch().is_none() {
            // An older image, of before the restart, must not be shown.
            return Err(Status::unavailable("this node is still starting"));
        }
        let image = self.context().image();
        Ok(Response::new(metadata::metadata(self.context(), &image, &request)))
    }

    async fn create_topic(&self, request: Request<CreateTopicRequest>) -> Answer<CreateTopicResponse> {
        let request = request.into_inner();
        let new = NewTopic {
            name: request.name,
            partitions: wanted(request.partitions),
            replication: wanted(request.replication_factor),
            assignments: None,
            configs: request.configs.into_iter().collect(),
            validate_only: request.validate_only,
        };
        Ok(Response::new(match self.controller.create_topic(new).await {
            Ok(created) => CreateTopicResponse {
                error: None,
                topic_id: convert::topic_id_bytes(created.id),
                partitions: created.partitions,
                replication_factor: created.replication,
            },
            Err(error) => CreateTopicResponse { error: self.error(&error), ..Default::default() },
        }))
    }

    async fn delete_topic(&self, request: Request<DeleteTopicRequest>) -> Answer<AdminResponse> {
        self.admin(self.controller.delete_topic(&request.into_inner().name).await)
    }

    async fn add_partitions(&self, request: Request<AddPartitionsRequest>) -> Answer<AdminResponse> {
        let request = request.into_inner();
        self.admin(self.controller.add_partitions(&request.name, request.total, None, false).await)
    }

    async fn alter_topic(&self, request: Request<AlterTopicRequest>) -> Answer<AdminResponse> {
        let request = request.into_inner();
        let set = request.set.into_iter().collect();
        self.admin(self.controller.alter_topic(&request.name, set, request.unset, false).await)
    }

    async fn describe_topic_configs(
        &self,
        request: Request<DescribeTopicConfigsRequest>,
    ) -> Answer<DescribeTopicConfigsResponse> {
        let name = request.into_inner().name;
        let image = self.context().image();
        let Some(topic) = image.topic_by_name(&name) else {
            let error = self.error(&ServeError::UnknownTopic(name));
            return Ok(Response::new(DescribeTopicConfigsResponse { error, configs: Vec::new() }));
        };
        let entries = configs::TOPIC_CONFIGS.iter().map(|key| ConfigEntry {
            name: key.name.to_owned(),
            value: configs::effective(&topic.configs, key.name).unwrap_or(key.default).to_owned(),
            is_default: !topic.configs.contains_key(key.name),
            documentation: key.documentation.to_owned(),
            r#type: key.kind.to_string(),
        });
        Ok(Response::new(DescribeTopicConfigsResponse { error: None, configs: entries.collect() }))
    }

    async fn elect_leader(&self, request: Request<ElectLeaderRequest>) -> Answer<AdminResponse> {
        let request = request.into_inner();
        let kind = if request.unclean { Election::Unclean } else { Election::Preferred };
        match convert::topic_partition(&request.topic_id, request.partition) {
            Ok(tp) => self.admin(self.controller.elect_leader(tp, kind).await),
            Err(error) => self.admin(Err(error)),
        }
    }

    async fn reassign(&self, request: Request<ReassignRequest>) -> Answer<AdminResponse> {
        let request = request.into_inner();
        let target = (!request.cancel).then(|| request.replicas.iter().copied().map(BrokerId).collect());
        match convert::topic_partition(&request.topic_id, request.partition) {
            Ok(tp) => self.admin(self.controller.reassign(tp, target).await),
            Err(error) => self.admin(Err(error)),
        }
    }

    async fn cluster_status(&self, _: Request<ClusterStatusRequest>) -> Answer<ClusterStatusResponse> {
        // Whoever is cut off from the majority still answers, with what it knew, and says so.
        let confirmed = tokio::time::timeout(CONFIRM_DEADLINE, self.context().linearize()).await;
        let image = self.context().image();
        let mut status = metadata::cluster_status(self.context(), &image);
        status.unconfirmed = !matches!(confirmed, Ok(Ok(())));
        status.error = self.not_ready();
        Ok(Response::new(status))
    }

    async fn remove_node(&self, request: Request<RemoveNodeRequest>) -> Answer<Self::RemoveNodeStream> {
        let id = BrokerId(request.into_inner().id);
        let (tx, rx) = tokio::sync::mpsc::channel(4);
        let (controller, context) = (self.controller.clone(), self.context().clone());
        tokio::spawn(async move {
            let say = |step: &str, left: usize, done: bool, error: Option<v1::Error>| {
                tx.send(Ok(RemoveNodeProgress {
                    error,
                    step: step.to_owned(),
                    replicas_left: left as u32,
                    done,
                }))
            };
            let fail = |error: ServeError| Some(convert::error(&context, &error));
            if let Err(error) = controller.begin_removal(id).await {
                let _ = say("refused", 0, true, fail(error)).await;
                return;
            }
            loop {
                let progress = controller.removal_progress(id).await;
                if progress.replicas_left == 0 {
                    break;
                }
                let step = match (progress.orphaned, progress.stuck) {
                    (0, 0) => "moving replicas away".to_owned(),
                    (0, stuck) => format!("{stuck} replicas cannot move before more nodes are started"),
                    (orphaned, _) => format!(
                        "only node {id} may lead {orphaned} partitions: start it, or, if its data is lost, give up \
                         what the others do not have (strandline topic alter TOPIC --config \
                         unclean.leader.election.enable=true, for each topic without a leader)"
                    ),
                };
                // The administrator went away: what has begun goes on, and can be asked for again.
                if say(&step, progress.replicas_left, false, None).await.is_err() {
                    return;
                }
            }
            let _ = say("leaving the cluster", 0, false, None).await;
            let finished = tokio::time::timeout(Duration::from_secs(60), controller.finish_removal(id)).await;
            let error = match finished {
                Ok(Ok(())) => None,
                Ok(Err(error)) => fail(error),
                Err(_) => fail(ServeError::ClusterNotReady(
                    "the node could not leave Raft in time; try again".into(),
                )),
            };
            let _ = say("removed", 0, true, error).await;
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(rx))))
    }

    async fn transfer_leadership(
        &self,
        request: Request<TransferLeadershipRequest>,
    ) -> Answer<AdminResponse> {
        let to = Some(request.into_inner().to).filter(|to| *to != 0);
        if !self.context().raft.is_leader() {
            let leader = self.context().raft.leader();
            return self.admin(Err(ServeError::NotController(leader.map(|(id, _)| BrokerId(id)))));
        }
        self.admin(crate::run::transfer_raft(self.context(), to).await)
    }

    async fn find_coordinator(
        &self,
        request: Request<FindCoordinatorRequest>,
    ) -> Answer<FindCoordinatorResponse> {
        self.find_coordinator_of(&request.into_inner().group)
    }

    async fn join_group(&self, request: Request<JoinGroupRequest>) -> Answer<JoinGroupResponse> {
        self.join(request).await
    }

    async fn sync_group(&self, request: Request<SyncGroupRequest>) -> Answer<SyncGroupResponse> {
        self.sync(request.into_inner()).await
    }

    async fn heartbeat(&self, request: Request<HeartbeatRequest>) -> Answer<HeartbeatResponse> {
        self.beat(request.into_inner())
    }

    async fn leave_group(&self, request: Request<LeaveGroupRequest>) -> Answer<LeaveGroupResponse> {
        self.leave(request.into_inner())
    }

    async fn offset_commit(&self, request: Request<OffsetCommitRequest>) -> Answer<OffsetCommitResponse> {
        self.commit(request.into_inner()).await
    }

    async fn offset_fetch(&self, request: Request<OffsetFetchRequest>) -> Answer<OffsetFetchResponse> {
        self.committed(request.into_inner()).await
    }

    async fn list_groups(&self, _: Request<ListGroupsRequest>) -> Answer<ListGroupsResponse> {
        self.list().await
    }

    async fn describe_group(&self, request: Request<DescribeGroupRequest>) -> Answer<DescribeGroupResponse> {
        self.describe(&request.into_inner().group).await
    }

    async fn delete_group(&self, request: Request<DeleteGroupRequest>) -> Answer<AdminResponse> {
        self.admin(self.groups.delete(&request.into_inner().group).await)
    }

    async fn delete_offsets(&self, request: Request<DeleteOffsetsRequest>) -> Answer<AdminResponse> {
        let request = request.into_inner();
        match groups::partitions(&request.topics) {
            Ok(partitions) => self.admin(self.groups.delete_offsets(&request.group, partitions).await),
            Err(error) => self.admin(Err(error)),
        }
    }
}
