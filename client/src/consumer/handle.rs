//! What can be done with a consumer besides taking records from it: subscriptions, positions, commits.

use super::Shared;
use super::group::Member;
use super::places::Lag;
use super::positions::Positions;
use crate::error::{Error, ErrorCode, ErrorKind, Result};
use crate::types::{OffsetAndMetadata, OffsetSpec, TopicPartition};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What can be done with a [`Consumer`](super::Consumer) besides taking records from it. Cheap to clone; usable from other tasks
/// and from a [`RebalanceListener`](super::RebalanceListener). A consumer dereferences to its handle.
#[derive(Clone)]
pub struct ConsumerHandle {
    pub(crate) shared: Arc<Shared>,
}

impl fmt::Debug for ConsumerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("group", &self.shared.options.group).finish_non_exhaustive()
    }
}

impl ConsumerHandle {
    /// Reads these topics with the group, which shares their partitions out. Replaces an earlier subscription.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] without a group, or beside [`assign`](Self::assign).
    pub fn subscribe<T: Into<String>>(&self, topics: impl IntoIterator<Item = T>) -> Result<()> {
        if self.shared.options.group.is_none() {
            return Err(Error::invalid(
                "subscribe needs a group: call group(…) on the builder, or use assign",
            ));
        }
        let topics: Vec<String> = topics.into_iter().map(Into::into).collect();
        if topics.is_empty() {
            return Err(Error::invalid("subscribe needs topics; close the consumer to leave its group"));
        }
        self.shared.group.subscribe(topics)?;
        Ok(())
    }

    /// Reads exactly these partitions, without membership. Replaces an earlier assignment; partitions in both go
    /// on where they are. With a group configured, its committed offsets are used, and can be committed.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] beside [`subscribe`](Self::subscribe).
    pub fn assign<T: Into<TopicPartition>>(&self, partitions: impl IntoIterator<Item = T>) -> Result<()> {
        self.shared.group.assign()?;
        let wanted: Vec<TopicPartition> = partitions.into_iter().map(Into::into).collect();
        let committed = self.shared.options.group.is_some();
        self.shared.change(|state| {
            let old = state.positions.assignment();
            state.positions.unassign(old.iter().filter(|tp| !wanted.contains(tp)));
            state.positions.assign(wanted, committed);
        });
        Ok(())
    }

    /// Partitions read at present.
    pub fn assignment(&self) -> Vec<TopicPartition> {
        self.shared.state.lock().positions.assignment()
    }

    /// Next offset that the application will be given; `None` while that is being looked up, or if the
    /// partition is not assigned.
    pub fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.shared.state.lock().positions.position(partition)
    }

    /// How far it is in a partition, as of the last fetch; `None` before the first.
    pub fn lag(&self, partition: &TopicPartition) -> Option<Lag> {
        self.shared.state.lock().positions.lag(partition)
    }

    /// Goes on reading a partition elsewhere: an [`OffsetSpec`] names the place. Clears an error that stopped it.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`] if the partition is not assigned.
    pub fn seek(&self, partition: &TopicPartition, to: OffsetSpec) -> Result<()> {
        if let OffsetSpec::Offset(offset) = to
            && offset < 0
        {
            return Err(Error::invalid(format!("there is no offset {offset}")));
        }
        self.assigned(partition, |positions| positions.seek(partition, to))
    }

    /// Stops handing out records of a partition, without giving it up.
    pub fn pause(&self, partition: &TopicPartition) -> Result<()> {
        self.assigned(partition, |positions| positions.set_paused(partition, true))
    }

    /// Hands out records of a paused partition again.
    pub fn resume(&self, partition: &TopicPartition) -> Result<()> {
        self.assigned(partition, |positions| positions.set_paused(partition, false))
    }

    /// Partitions that are paused.
    pub fn paused(&self) -> Vec<TopicPartition> {
        self.shared.state.lock().positions.paused()
    }

    fn assigned(&self, tp: &TopicPartition, change: impl FnOnce(&mut Positions) -> bool) -> Result<()> {
        if self.shared.change(|state| change(&mut state.positions)) {
            Ok(())
        } else {
            Err(Error::invalid(format!("partition {tp} is not assigned to this consumer")))
        }
    }

    /// Commits the positions of all partitions: everything handed out so far counts as processed.
    ///
    /// # Errors
    /// [`ErrorKind::Rebalanced`] if the group moved on without this member: the partitions are someone else's.
    /// `REBALANCE_IN_PROGRESS`: ask for a record, which lets the rebalance go on, then commit again.
    pub async fn commit(&self) -> Result<()> {
        let _in_order = self.shared.group.committing.lock().await;
        let member = self.shared.group.member();
        let offsets = self.shared.state.lock().positions.offsets(false, |_| true);
        self.commit_as(&member, &offsets).await
    }

    /// Commits these offsets: each is the next record to read, one past the last processed.
    pub async fn commit_offsets(&self, offsets: &BTreeMap<TopicPartition, OffsetAndMetadata>) -> Result<()> {
        let _in_order = self.shared.group.committing.lock().await;
        self.commit_as(&self.shared.group.member(), offsets).await
    }

    /// Commits the positions of all partitions in the background. A failure is logged; the next commit makes it
    /// good.
    pub fn commit_async(&self) -> Result<()> {
        self.group_name()?;
        let offsets = self.shared.state.lock().positions.offsets(false, |_| true);
        self.shared.group.commit_later(offsets);
        Ok(())
    }

    /// Commits as `member`. It must have been asked for before the offsets were: if the group has moved on since,
    /// the old generation is refused, where the new one would overwrite what the partitions' new owners have
    /// committed (hazard 28).
    pub(super) async fn commit_as(
        &self,
        member: &Member,
        offsets: &BTreeMap<TopicPartition, OffsetAndMetadata>,
    ) -> Result<()> {
        let group = self.group_name()?;
        let instance = self.shared.options.instance_id.as_deref().unwrap_or("");
        let inner = &self.shared.client.inner;
        if member.generation < 0 && self.shared.group.is_subscribed() && !offsets.is_empty() {
            // Sent without a generation it would be accepted once the group is empty, over what those have committed who
            // were in it meanwhile.
            return Err(Error::new(
                ErrorKind::Rebalanced,
                format!(
                    "the offsets were not committed: this consumer is no member of group {group} at the moment, so \
                     that its partitions may be someone else's; it joins again when it is asked for a record"
                ),
            ));
        }
        match inner.commit_offsets(group, member.generation, &member.id, instance, offsets).await {
            Ok(()) => Ok(()),
            Err(error) if self.shared.group.is_assigned() => Err(error.of_no_member(group)),
            Err(error) => match error.code() {
                Some(ErrorCode::IllegalGeneration | ErrorCode::UnknownMemberId) => {
                    if member.generation < 0 {
                        // Offsets of a group that others are in.
                        return Err(error);
                    }
                    let forgotten = error.code() == Some(ErrorCode::UnknownMemberId);
                    self.shared.group.lost(&member.id, member.generation, forgotten);
                    let why = "the group gave this member up, because it asked for no record within \
                               max_poll_interval or its heartbeats did not arrive";
                    let rebalanced = |what: &str| {
                        Error::new(ErrorKind::Rebalanced, format!("the offsets {what}: {why} ({error})"))
                    };
                    // An earlier try of the same call may have been accepted, and its answer lost.
                    Err(match error.may_have_happened() {
                        true => rebalanced("may or may not be committed").possibly(),
                        false => rebalanced("were not committed"),
                    })
                }
                Some(ErrorCode::RebalanceInProgress) => {
                    self.shared.group.rebalancing(member);
                    Err(error)
                }
                _ => Err(error),
            },
        }
    }

    /// What the group has committed for these partitions; those without a commit are left out.
    pub async fn committed(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, OffsetAndMetadata>> {
        let group = self.group_name()?;
        self.shared.client.inner.fetch_offsets(group, partitions).await
    }

    /// Log start offset of a partition.
    pub async fn beginning_offset(&self, partition: &TopicPartition) -> Result<i64> {
        self.offset_at(partition, OffsetSpec::Earliest).await.map(|offset| offset.unwrap_or(0))
    }

    /// High watermark of a partition: the next record to be written.
    pub async fn end_offset(&self, partition: &TopicPartition) -> Result<i64> {
        self.offset_at(partition, OffsetSpec::Latest).await.map(|offset| offset.unwrap_or(0))
    }

    /// First offset at or after a place, `None` if there is no such record.
    pub async fn offset_at(&self, partition: &TopicPartition, spec: OffsetSpec) -> Result<Option<i64>> {
        Ok(self.shared.client.inner.list_offset(partition, spec).await?.offset)
    }

    /// Member id and generation in the group, `None` while it is no member.
    pub fn membership(&self) -> Option<(String, i32)> {
        let member = self.shared.group.member();
        (member.generation >= 0).then_some((member.id, member.generation))
    }

    fn group_name(&self) -> Result<&str> {
        self.shared
            .options
            .group
            .as_deref()
            .ok_or_else(|| Error::invalid("commits need a group: call group(…) on the builder"))
    }
}
