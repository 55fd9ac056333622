//! A replica whose log was found damaged: it takes no role until that is agreed, then it is cut and fetched again.

use super::{After, IdleReason, Partition, RoleState, State};
use strandline_core::partition::{Damage, damage_reported};
use strandline_metadata::{Command, Image};
use strandline_record::Offset;

/// A damage report without effect is sent again after this.
const REPORT_AGAIN_MS: u64 = 1_000;

impl Partition {
    /// Looks whether the log has been found damaged (by a read, the scrub, or recovery).
    pub fn look_for_damage(&self) {
        let now_ms = self.context.now_ms();
        let mut after = After::default();
        {
            let mut state = self.state.lock();
            let image = self.context.image();
            self.see_damage(&mut state, Some(&image));
            if state.damage.is_some() && !matches!(state.role, RoleState::Idle(_)) {
                // From detection until the report is agreed it neither leads nor fetches.
                self.end_role(&mut state, IdleReason::Damaged, &mut after);
            }
            if let Some(agreed) = image.partition(self.tp) {
                self.report_damage(&mut state, agreed, now_ms, &mut after);
            }
        }
        self.carry_out(after);
    }

    pub(super) fn see_damage(&self, state: &mut State, image: Option<&Image>) {
        if state.damage.is_none() && self.log.damaged().is_some() {
            let found_in = image.and_then(|image| image.partition(self.tp)).map(|agreed| agreed.leader_epoch);
            state.damage = Some(Damage { found_in });
            self.context.meters.partitions.damage_found.inc();
            state.reported_at_ms = None;
        }
    }

    /// Reports it until that is agreed. Each report that is applied begins a leader epoch: where nobody is left to lead,
    /// and so to fetch from, reports would go on for ever.
    pub(super) fn report_damage(
        &self,
        state: &mut State,
        agreed: &strandline_metadata::Partition,
        now_ms: u64,
        after: &mut After,
    ) {
        let (Some(damage), Some(from), Some(epoch)) =
            (state.damage, self.log.damaged(), self.context.broker_epoch())
        else {
            return;
        };
        if damage_reported(self.context.id, epoch, damage, agreed) {
            return;
        }
        if state.reported_at_ms.is_some_and(|at| now_ms.saturating_sub(at) < REPORT_AGAIN_MS) {
            return;
        }
        state.reported_at_ms = Some(now_ms);
        tracing::warn!(partition = %self.tp, topic = %self.topic, %from, "this replica is damaged; reporting it");
        after.propose = Some(Command::ReplicaDamaged { id: self.context.id, epoch, tp: self.tp, from });
    }

    /// The report has been agreed and somebody leads: cut the log at the damage, refetch the rest. Of a compacted one
    /// all of it: behind the damage there may have been tombstones that the others have removed since.
    pub(super) fn repair(&self, state: &mut State, follows: bool) {
        let repaired = match follows && state.settings.compaction.is_some() {
            true => self.log.reset_to(Offset::ZERO).map(|()| Offset::ZERO),
            false => self.log.repair(),
        };
        match repaired {
            Ok(end) => {
                tracing::info!(partition = %self.tp, %end, "damage cut; fetching the rest again");
                self.context.meters.partitions.damage_repaired.inc();
                state.damage = None;
                state.reported_at_ms = None;
                state.truncations += 1;
                state.high_watermark = state.high_watermark.min(end).max(self.log.log_start());
            }
            Err(error) => tracing::error!(partition = %self.tp, %error, "the damaged log could not be cut"),
        }
    }
}
