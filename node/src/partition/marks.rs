//! What this replica looks like to whoever inspects the node.

use super::{Partition, RoleState};
use crate::error::ServeError;
use crate::inspect::{PartitionMarks, RoleMarks};
use bytes::Bytes;
use strandline_record::Offset;

impl Partition {
    pub fn marks(&self) -> PartitionMarks {
        let state = self.state.lock();
        let (role, high_watermark, maximal_isr) = match &state.role {
            RoleState::Idle(_) => (RoleMarks::Idle, state.high_watermark, Vec::new()),
            RoleState::Leader(leading) => (
                RoleMarks::Leader { epoch: leading.core.epoch() },
                leading.core.high_watermark(),
                leading.core.maximal_isr().into_iter().collect(),
            ),
            RoleState::Follower(following) => (
                RoleMarks::Follower { leader: following.leader, epoch: following.core.epoch() },
                following.core.high_watermark(),
                Vec::new(),
            ),
        };
        PartitionMarks {
            tp: self.tp,
            role,
            log_start: self.log.log_start(),
            log_end: self.log.log_end(),
            flushed_end: self.log.flushed_end(),
            high_watermark,
            maximal_isr,
            damaged: self.log.damaged().is_some(),
        }
    }

    /// Stored batches from `from` on, visible or not.
    pub fn read_own_log(&self, from: Offset, max_bytes: usize) -> Result<Bytes, ServeError> {
        let end = self.log.log_end();
        let from = from.max(self.log.log_start());
        let read = self.log.read(from, max_bytes, true, end);
        read.map(|batches| batches.bytes).map_err(|error| ServeError::Storage(error.to_string()))
    }
}
