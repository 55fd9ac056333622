//! One demonstration for a cluster. Who runs it is a member of the group [`NAME`] and has the only partition of the topic of
//! that name; others are members too if they will, but have nothing. What it says of itself is the text beside the offset
//! that it commits there.
//!
//! ```text
//!  take:  describe group ─► someone has the partition: Held, by whom
//!                        └► join ─► assigned: mine ─► commit (by, rate, ends)
//!                                └► stable and someone else has it: leave, Held
//!  hold:  heartbeats are the consumer's; without the partition for LOST: over
//! ```
//!
//! A process that dies is a member until its session times out, so long nobody else can begin. A process that was held up for
//! longer may run on for [`LOST`] beside its successor: two streams of payments for a moment, and no harm.

use super::Running;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;
use strandline_client::{
    AutoOffsetReset, Client, Consumer, Error, ErrorCode, OffsetAndMetadata, TopicPartition,
};
use tokio::time::Instant;
use utoipa::ToSchema;

/// Topic and group.
pub(super) const NAME: &str = "demo.lease";
/// So long a holder that died keeps others out.
const SESSION: Duration = Duration::from_secs(10);
/// So long a holder runs on without its partition: a rebalance passes, and a coordinator that was killed.
const LOST: Duration = Duration::from_secs(15);
/// To become a member and see who has what.
const JOIN: Duration = Duration::from_secs(20);
const LEAVE: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(200);
/// Names of holders are cut to this: the text beside an offset has a limit.
const MAX_BY: usize = 200;

/// The demonstration of a cluster, as others see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DemoHolder)]
pub struct Holder {
    /// Where it runs.
    pub by: String,
    /// Payments a minute that are asked for; 0 if that is not known.
    pub rate_per_minute: u32,
    /// In milliseconds since 1970; 0 if that is not known.
    pub started_at: i64,
    /// When it stops by itself, in milliseconds since 1970.
    pub ends_at: Option<i64>,
}

/// What is committed: a member's own words only.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Words {
    member: String,
    holder: Holder,
}

/// Why it is not ours.
#[derive(Debug)]
pub(super) enum NotMine {
    Held(Holder),
    Cluster(Error),
}

impl From<Error> for NotMine {
    fn from(error: Error) -> NotMine {
        NotMine::Cluster(error)
    }
}

fn partition() -> TopicPartition {
    TopicPartition::new(NAME, 0)
}

/// Who has it.
///
/// # Errors
/// If the cluster does not say.
pub(super) async fn holder(client: &Client) -> Result<Option<Holder>, Error> {
    Ok(owner(client).await?.map(|(_, holder)| holder))
}

/// Member id and words of who has the partition.
async fn owner(client: &Client) -> Result<Option<(String, Holder)>, Error> {
    let admin = client.admin();
    let group = match admin.describe_group(NAME).await {
        Err(error) if error.code() == Some(ErrorCode::GroupNotFound) => return Ok(None),
        described => described?,
    };
    let lease = partition();
    let Some(member) = group.members.into_iter().find(|member| member.partitions.contains(&lease)) else {
        return Ok(None);
    };
    let committed = admin.group_offsets(NAME).await?;
    let words = committed.get(&lease).map_or("", |committed| &committed.position.metadata);
    Ok(Some((member.member_id.clone(), spoken(words, &member.member_id, &member.client_id))))
}

/// What a member says of itself. A new one may not have said anything yet, and what is there is of the one before.
fn spoken(words: &str, member: &str, client: &str) -> Holder {
    match serde_json::from_str::<Words>(words) {
        Ok(words) if words.member == member => words.holder,
        _ => Holder { by: client.to_owned(), rate_per_minute: 0, started_at: 0, ends_at: None },
    }
}

/// The right to run the demonstration.
pub(super) struct Lease {
    consumer: Consumer,
    said: Option<Words>,
}

impl Lease {
    pub(super) async fn take(client: &Client) -> Result<Lease, NotMine> {
        // Does not even join while someone has it: nobody is disturbed.
        if let Some(holder) = holder(client).await? {
            return Err(NotMine::Held(holder));
        }
        let consumer = client
            .consumer()
            .group(NAME)
            .auto_commit(false)
            .auto_offset_reset(AutoOffsetReset::Earliest)
            .session_timeout(SESSION)
            .build()?;
        consumer.subscribe([NAME])?;
        let mut lease = Lease { consumer, said: None };
        let deadline = Instant::now() + JOIN;
        loop {
            lease.look().await;
            if lease.is_held() {
                return Ok(lease);
            }
            let over = Instant::now() >= deadline;
            let failed = match lease.consumer.membership() {
                Some((mine, _)) => match owner(client).await {
                    Ok(Some((other, holder))) if other != mine => Some(NotMine::Held(holder)),
                    Err(error) if over => Some(NotMine::Cluster(error)),
                    _ => None,
                },
                None => None,
            };
            let failed = failed.or_else(|| over.then(|| NotMine::Held(nobody_knows())));
            if let Some(failed) = failed {
                lease.give_back().await;
                return Err(failed);
            }
        }
    }

    /// Asks for a record, of which there is none: so the consumer takes part in rebalances.
    async fn look(&mut self) {
        if self.consumer.poll(1, LOOK).await.is_err() {
            // The consumer goes on by itself; this only keeps from asking without a pause.
            tokio::time::sleep(LOOK).await;
        }
    }

    fn is_held(&self) -> bool {
        !self.consumer.assignment().is_empty()
    }

    /// Keeps it, and says what runs. Ends when it is lost for good.
    pub(super) async fn hold(&mut self, running: &Running) {
        let mut held = Instant::now();
        while held.elapsed() < LOST {
            self.look().await;
            if self.is_held() {
                held = Instant::now();
                self.say(running.holder()).await;
            }
        }
    }

    /// Tells others, if there is something new to tell.
    async fn say(&mut self, mut holder: Holder) {
        let Some((member, _)) = self.consumer.membership() else { return };
        holder.by = holder.by.chars().take(MAX_BY).collect();
        let words = Words { member, holder };
        if self.said.as_ref() == Some(&words) {
            return;
        }
        let metadata = serde_json::to_string(&words).expect("text and numbers are JSON");
        let at = OffsetAndMetadata { metadata, ..OffsetAndMetadata::new(0) };
        match self.consumer.commit_offsets(&BTreeMap::from([(partition(), at)])).await {
            Ok(()) => self.said = Some(words),
            Err(error) => tracing::debug!(%error, "what the demonstration does is not written down yet"),
        }
    }

    /// Lets others begin.
    pub(super) async fn give_back(self) {
        if tokio::time::timeout(LEAVE, self.consumer.close()).await.is_err() {
            tracing::debug!("the demonstration's place was not left in time; its session ends by itself");
        }
    }
}

fn nobody_knows() -> Holder {
    spoken("", "", "another gateway, which began at the same moment")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_members_words_count_and_those_of_the_one_before_do_not() {
        let holder =
            Holder { by: "127.0.0.1:8080".into(), rate_per_minute: 10_000, started_at: 5, ends_at: Some(9) };
        let words = Words { member: "m-1".into(), holder: holder.clone() };
        let text = serde_json::to_string(&words).unwrap();
        assert_eq!(spoken(&text, "m-1", "strandline-gateway"), holder);
        for (text, member) in [(text.as_str(), "m-2"), ("", "m-1"), ("{", "m-1")] {
            let unknown = spoken(text, member, "strandline-gateway");
            assert_eq!((unknown.by.as_str(), unknown.rate_per_minute), ("strandline-gateway", 0));
        }
    }

    #[test]
    fn the_longest_words_fit_beside_an_offset() {
        let holder = Holder {
            by: "\u{1}".repeat(MAX_BY),
            rate_per_minute: u32::MAX,
            started_at: i64::MIN,
            ends_at: Some(i64::MIN),
        };
        let words = Words { member: "x".repeat(300), holder };
        assert!(serde_json::to_string(&words).unwrap().len() < 4096);
    }
}
