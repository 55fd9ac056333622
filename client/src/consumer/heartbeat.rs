//! What a member does beside reading: heartbeats, commits at an interval, leaving.

use super::group::{Member, Mode};
use super::{ConsumerHandle, Shared};
use crate::backoff::Backoff;
use crate::error::{ErrorCode, ErrorKind, Result};
use crate::types::{OffsetAndMetadata, TopicPartition};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use strandline_wire::v1;
use tokio::time::Instant;

/// Leaves the group. A static member stays on its list until its session times out.
pub(super) async fn leave(shared: &Arc<Shared>, why: &str) {
    let (inner, options) = (&shared.client.inner, &shared.options);
    let Some(group) = &options.group else { return };
    let member = shared.group.member();
    if member.id.is_empty() || options.instance_id.is_some() {
        return;
    }
    let request =
        v1::LeaveGroupRequest { group: group.clone(), member_id: member.id, instance_id: String::new() };
    let left = match inner.coordinator(group).await {
        Ok(address) => {
            let call =
                |mut wire: crate::connection::Wire| -> crate::call::CallFuture<v1::LeaveGroupResponse> {
                    Box::pin(async move { wire.leave_group(request).await })
                };
            inner.call_once(&address, inner.options.request_timeout, call).await.map(drop)
        }
        Err(error) => Err(error),
    };
    match left {
        Ok(()) => tracing::info!(group, why, "left the group"),
        Err(error) => tracing::warn!(group, %error, "could not leave the group; its session will time out"),
    }
}

/// The task that says that the member lives.
pub(super) async fn heartbeat(shared: Arc<Shared>) {
    let (inner, options) = (shared.client.inner.clone(), shared.options.clone());
    let group = options.group.clone().expect("started only with a group");
    let mut polls = 0;
    let mut last_poll = Instant::now();
    let mut backoff = Backoff::new(inner.options.retry);
    let mut pause = options.heartbeat_interval;
    loop {
        tokio::time::sleep(pause).await;
        pause = options.heartbeat_interval;
        let member = shared.group.member();
        let now_polls = shared.polls.load(Ordering::Relaxed);
        if now_polls != polls || shared.state.lock().in_poll || member.generation < 0 {
            (polls, last_poll) = (now_polls, Instant::now());
        }
        if member.generation < 0 {
            continue;
        }
        if last_poll.elapsed() >= options.max_poll_interval {
            tracing::warn!(group, "no record was asked for within max_poll_interval; leaving the group");
            leave(&shared, "no record was asked for within max_poll_interval").await;
            shared.group.lost(&member.id, member.generation, options.instance_id.is_none());
            continue;
        }
        if !member.stable {
            continue;
        }
        match beat(&shared, &group, &member).await {
            Ok(()) => backoff.reset(),
            Err(error) => match error.code() {
                Some(ErrorCode::RebalanceInProgress) => shared.group.rebalancing(&member),
                Some(ErrorCode::IllegalGeneration) => shared.group.lost(&member.id, member.generation, false),
                Some(ErrorCode::UnknownMemberId) => shared.group.lost(&member.id, member.generation, true),
                _ if error.is_retriable() || error.may_have_happened() => {
                    tracing::debug!(group, %error, "heartbeat failed");
                    inner.coordinator_failed(&group, &error);
                    pause = inner.delay(&mut backoff).min(options.heartbeat_interval);
                }
                _ => {
                    if shared.group.refuse(&member) {
                        shared.tell(error.context(format_args!("membership in group {group} ended")));
                    }
                }
            },
        }
    }
}

async fn beat(shared: &Arc<Shared>, group: &str, member: &Member) -> Result<()> {
    let inner = &shared.client.inner;
    let address = inner.coordinator(group).await?;
    let request = v1::HeartbeatRequest {
        group: group.to_owned(),
        generation: member.generation,
        member_id: member.id.clone(),
        instance_id: shared.options.instance_id.clone().unwrap_or_default(),
    };
    // A lost heartbeat must leave time for another within the session.
    let timeout =
        inner.options.request_timeout.min(shared.options.session_timeout / 3).max(Duration::from_millis(1));
    inner
        .call_once(&address, timeout, |mut wire| Box::pin(async move { wire.heartbeat(request).await }))
        .await
        .map(drop)
}

/// The task that commits at an interval, and what [`GroupShared::commit_later`] was given.
pub(super) async fn commit_periodically(shared: Arc<Shared>) {
    let mut committed: BTreeMap<TopicPartition, OffsetAndMetadata> = BTreeMap::new();
    let handle = ConsumerHandle { shared: shared.clone() };
    let period = shared.options.auto_commit;
    let mut next = period.map(|period| Instant::now() + period);
    loop {
        let due = async {
            match next {
                Some(next) => tokio::time::sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = shared.group.commit_wanted.notified() => {
                let _in_order = shared.group.committing.lock().await;
                let member = shared.group.member();
                let mut offsets = std::mem::take(&mut *shared.group.later.lock());
                {
                    // What was given up since is no longer this member's to commit.
                    let state = shared.state.lock();
                    offsets.retain(|tp, _| state.positions.is_assigned(tp));
                }
                if let Err(error) = handle.commit_as(&member, &offsets).await {
                    tracing::warn!(%error, "commit in the background failed");
                }
            }
            () = due => {
                next = period.map(|period| Instant::now() + period);
                {
                    let state = shared.group.state.lock();
                    if matches!(state.mode, Mode::Subscribed(_)) && !state.member.stable {
                        // The rebalance commits.
                        continue;
                    }
                }
                let _in_order = shared.group.committing.lock().await;
                let member = shared.group.member();
                let offsets = shared.state.lock().positions.offsets(true, |_| true);
                let news: BTreeMap<_, _> =
                    offsets.iter().filter(|(tp, offset)| committed.get(tp) != Some(offset)).map(|(tp, o)| (tp.clone(), o.clone())).collect();
                match handle.commit_as(&member, &news).await {
                    Ok(()) => committed = offsets,
                    Err(error) if matches!(error.kind(), ErrorKind::Rebalanced) || error.is_retriable() => {
                        tracing::debug!(%error, "automatic commit failed; the next makes it good");
                    }
                    Err(error) => tracing::warn!(%error, "automatic commit failed"),
                }
            }
        }
    }
}
