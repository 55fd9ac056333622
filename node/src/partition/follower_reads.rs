//! Consumers that read from a follower near them (KIP-392).
//!
//! A follower shows what lies below the high watermark that its present leader has told it: there all replicas
//! agree. It never says that an offset is out of range, since only the leader knows (hazard 12): what it has not,
//! it does not have yet, or the leader has.

use super::{Fetched, Partition, ReadRequest, RoleState, ServeError};
use bytes::Bytes;
use strandline_record::{BrokerId, LeaderEpoch, Offset};

/// What a follower knows while it follows one leader.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Following {
    leader: BrokerId,
    epoch: LeaderEpoch,
    truncations: u64,
    high_watermark: Offset,
}

impl Partition {
    /// What is visible from an offset on, as far as this follower knows.
    pub fn read_following(&self, request: &ReadRequest) -> Result<Fetched, ServeError> {
        let following = self.following(request.leader_epoch)?;
        let Following { leader, epoch, high_watermark, .. } = following;
        let log_start = self.log.log_start();
        let ask_leader = || ServeError::NotLeader { leader: Some(leader), epoch };
        if request.from < log_start {
            return Err(ask_leader());
        }
        if request.from > high_watermark {
            return Err(ServeError::OffsetNotAvailable);
        }
        // Whether the client's log is this one is for the leader to say.
        let diverges = request.last_fetched_epoch.is_some_and(|last| match self.log.end_of_epoch(last) {
            Some((known, end)) => known != last || end < request.from,
            None => request.from > log_start,
        });
        if diverges {
            return Err(ask_leader());
        }
        let fetched = Fetched {
            batches: Bytes::new(),
            high_watermark,
            log_start,
            leader_epoch: epoch,
            diverging: None,
        };
        if request.from == high_watermark || request.max_bytes == 0 && !request.min_one_batch {
            return Ok(fetched);
        }
        let read = self.log.read(request.from, request.max_bytes, request.min_one_batch, high_watermark);
        // What was read counts only if nothing was cut meanwhile.
        let now = self.following(request.leader_epoch)?;
        if (now.epoch, now.truncations) != (epoch, following.truncations) {
            return Err(ServeError::OffsetNotAvailable);
        }
        match read {
            Ok(read) => Ok(Fetched { batches: read.bytes, ..fetched }),
            Err(strandline_storage::ReadError::Damaged { .. }) => {
                self.look_for_damage();
                Err(ask_leader())
            }
            Err(_) => Err(ask_leader()),
        }
    }

    /// The following state, if the high watermark is one that the present leader has told.
    fn following(&self, asked: Option<LeaderEpoch>) -> Result<Following, ServeError> {
        let state = self.state.lock();
        if state.stopped {
            return Err(ServeError::ShuttingDown);
        }
        let RoleState::Follower(following) = &state.role else {
            let image = self.context.image();
            let agreed = image.partition(self.tp);
            let epoch = agreed.map_or(LeaderEpoch(0), |agreed| agreed.leader_epoch);
            let leader = agreed.and_then(|agreed| agreed.leader).filter(|leader| *leader != self.context.id);
            return Err(ServeError::NotLeader { leader, epoch });
        };
        let (core, leader) = (&following.core, following.leader);
        let current = core.epoch();
        match asked {
            Some(asked) if asked < current => return Err(ServeError::FencedLeaderEpoch { asked, current }),
            Some(asked) if asked > current => return Err(ServeError::UnknownLeaderEpoch { asked, current }),
            _ => {}
        }
        if core.high_watermark_epoch() != current {
            return Err(ServeError::OffsetNotAvailable);
        }
        let high_watermark = core.high_watermark().min(self.log.log_end());
        Ok(Following { leader, epoch: current, truncations: self.log.truncations(), high_watermark })
    }
}
