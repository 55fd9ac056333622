//! The peer listener's own gRPC service: probes, joining and broker sessions.

use crate::broker::Broker;
use crate::context::Context;
use crate::controller::{Controller, SessionEvent};
use futures::Stream;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use strandline_record::BrokerId;
use strandline_wire::peer::peer_server::Peer;
use strandline_wire::peer::{
    ForgetReply, ForgetRequest, JoinReply, JoinRequest, ProbeReply, ProbeRequest, SessionBeat, SessionReply,
};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

/// A new node catches up with the metadata as a learner within this time, or is told to ask again.
const JOIN_STEP: Duration = Duration::from_secs(8);
/// Beats and replies of one session that may wait.
const SESSION_QUEUE: usize = 16;

pub struct PeerService {
    pub broker: Arc<Broker>,
    pub controller: Arc<Controller>,
}

type Out<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl PeerService {
    fn context(&self) -> &Arc<Context> {
        self.broker.context()
    }

    async fn let_in(&self, request: &JoinRequest) -> Result<String, (bool, String)> {
        let context = self.context();
        // Which directory belongs to an id is not to be answered from the past.
        context.linearize().await.map_err(|error| (true, error.to_string()))?;
        let image = context.image();
        let Some(cluster_id) = image.cluster_id else {
            return Err((true, "this node is not part of a formed cluster yet".to_owned()));
        };
        if !request.cluster_id.is_empty() && request.cluster_id != cluster_id.to_string() {
            return Err((
                false,
                format!(
                    "this is cluster {cluster_id}, the node wants to join cluster {}",
                    request.cluster_id
                ),
            ));
        }
        let id = BrokerId(request.broker_id);
        if let Some(known) = image.broker(id)
            && known.directory.to_string() != request.directory
        {
            return Err((
                false,
                format!(
                    "node {id} is known with another data directory ({}); if its disk is lost, run `strandline cluster \
                     remove-node {id}` first, then join again",
                    known.directory
                ),
            ));
        }
        if request.moved && image.broker(id).is_none() {
            return Err((false, format!("node {id} is not registered here")));
        }
        if image.broker(id).is_none() && context.raft.voters().contains_key(&id.0) {
            return Err((false, format!("node id {id} is taken by a voter that has not registered yet")));
        }
        if request.check_only {
            // Its log is empty: whoever held the id before, and got entries, is not the same member.
            if image.broker(id).is_none() && context.raft.learners().contains_key(&id.0) {
                context.raft.remove(id.0).await.map_err(|error| (true, error.to_string()))?;
            }
            return Ok(cluster_id.to_string());
        }
        context
            .raft
            .add_learner(id.0, request.peer_endpoint.clone())
            .await
            .map_err(|error| (true, error.to_string()))?;
        Ok(cluster_id.to_string())
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    type SessionStream = Out<SessionReply>;

    async fn session(
        &self,
        request: Request<Streaming<SessionBeat>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut beats = request.into_inner();
        let (tx, rx) = mpsc::channel(SESSION_QUEUE);
        let controller = self.controller.clone();
        let stopping = self.context().stopping.clone();
        tokio::spawn(async move {
            let (mut session, mut tx) = (None, Some(tx));
            loop {
                let beat = tokio::select! {
                    biased;
                    () = stopping.cancelled() => break,
                    beat = beats.message() => beat,
                };
                let Ok(Some(beat)) = beat else { break };
                let broker = BrokerId(beat.broker_id);
                let (broker, number) = *session.get_or_insert_with(|| {
                    // The controller alone holds the other end, so that dropping it ends the stream.
                    let replies = tx.take().expect("a session is opened once");
                    (broker, controller.open_session(broker, replies))
                });
                controller.send(SessionEvent::Beat { broker, session: number, beat });
            }
            if let Some((broker, number)) = session {
                controller.send(SessionEvent::Closed { broker, session: number });
            }
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(rx))))
    }

    async fn probe(&self, request: Request<ProbeRequest>) -> Result<Response<ProbeReply>, Status> {
        let context = self.context();
        let ProbeRequest { broker_id: asker, confirm } = request.into_inner();
        if confirm {
            context.linearize().await.map_err(|error| Status::unavailable(error.to_string()))?;
        }
        let image = context.image();
        if context.store.cluster_id().is_some() && image.cluster_id.is_none() {
            // Which directory belongs to the asker is not known yet; it asks again.
            return Err(Status::unavailable("this node is still recovering the metadata"));
        }
        let members = context.raft.voters();
        Ok(Response::new(ProbeReply {
            broker_id: context.id.0,
            broker_epoch: context.broker_epoch().map_or(0, |epoch| epoch.0),
            cluster_id: image.cluster_id.map(|id| id.to_string()).unwrap_or_default(),
            asker_directory: image
                .broker(BrokerId(asker))
                .map(|b| b.directory.to_string())
                .unwrap_or_default(),
            asker_is_member: members.contains_key(&asker) || context.raft.learners().contains_key(&asker),
            has_state: !members.is_empty(),
            metadata_index: image.index,
            forming: match (&context.config.form_cluster, members.is_empty()) {
                (Some(nodes), true) => nodes.to_string(),
                _ => String::new(),
            },
        }))
    }

    async fn forget(&self, request: Request<ForgetRequest>) -> Result<Response<ForgetReply>, Status> {
        let request = request.into_inner();
        let known = self.context().image().cluster_id.map(|id| id.to_string());
        if known.as_ref() != Some(&request.cluster_id) {
            return Err(Status::failed_precondition("that is another cluster"));
        }
        self.controller.dismiss(BrokerId(request.broker_id));
        Ok(Response::new(ForgetReply {}))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        let context = self.context();
        let request = request.into_inner();
        if !context.raft.is_leader() {
            let leader = context.raft.leader().and_then(|(id, _)| {
                let image = context.image();
                image.broker(BrokerId(id)).map(|b| b.endpoints.peer.to_string())
            });
            return Ok(Response::new(JoinReply {
                accepted: false,
                message: "this node does not lead the metadata".to_owned(),
                leader_endpoint: leader.unwrap_or_default(),
                retriable: true,
                ..Default::default()
            }));
        }
        let reply = match tokio::time::timeout(JOIN_STEP, self.let_in(&request)).await {
            Ok(Ok(cluster_id)) => JoinReply { accepted: true, cluster_id, ..Default::default() },
            Ok(Err((retriable, message))) => {
                JoinReply { accepted: false, message, retriable, ..Default::default() }
            }
            Err(_) => JoinReply {
                accepted: false,
                message: "the new node is still catching up".to_owned(),
                retriable: true,
                ..Default::default()
            },
        };
        Ok(Response::new(reply))
    }
}
