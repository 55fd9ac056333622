//! What a demonstration says of itself, as `GET /v1/demo` and `strandline demo --json` show it.

use serde::Serialize;
use utoipa::ToSchema;

/// Whether one runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DemoState)]
pub enum State {
    /// None runs; figures are of the last one, if there was one.
    Stopped,
    /// It waits for its topics and its place.
    Starting,
    /// Here.
    Running,
    /// What is on its way is finished.
    Stopping,
    /// On another gateway, or in a `strandline demo`.
    Elsewhere,
}

/// Why one ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DemoEnded)]
pub enum Ended {
    /// It was told to.
    Stopped,
    /// Its time was up.
    TimeIsUp,
    /// The cluster did not hear of it for too long and gave its place away, perhaps to another one.
    LostItsPlace,
    /// A part of it failed, which is a fault of this program.
    Broken,
}

/// A demonstration at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DemoReport)]
pub struct Report {
    /// Whether it runs.
    pub state: State,
    /// Where it runs.
    pub by: String,
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
    /// In milliseconds since 1970.
    pub started_at: i64,
    /// When it stops by itself, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<i64>,
    /// Payments a minute that are asked for.
    pub rate_per_minute: u32,
    /// The writing side.
    pub written: Written,
    /// The reading side; nothing without groups.
    pub groups: Vec<Group>,
}

/// What became of the payments.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DemoWritten)]
pub struct Written {
    /// Acknowledged payments a minute, over the last five seconds.
    pub achieved_per_minute: u64,
    /// Acknowledged: on disk on every in-sync replica.
    pub acknowledged: u64,
    /// Not written for certain.
    pub failed: u64,
    /// Written or not: no answer came in time.
    pub unknown: u64,
    /// Due and not sent yet: the cluster takes them more slowly than they come.
    pub behind: u64,
    /// Never sent: they were due for more than ten seconds.
    pub shed: u64,
    /// 50th, 95th and 99th percentile, in milliseconds, of the time from when a payment was due to its acknowledgement, over
    /// the last five seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<[f64; 3]>,
    /// The last thing that went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// A consumer group of the demonstration.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DemoGroup)]
pub struct Group {
    /// Its name.
    pub group: String,
    /// What it does just now.
    pub phase: String,
    /// Members at present.
    pub members: usize,
    /// Payments behind the end of the topic; absent while the ends are not known.
    pub lag: Option<u64>,
    /// Payments read a second, over the last five seconds.
    pub per_second: u64,
    /// Payments read, repeated ones among them.
    pub read: u64,
    /// Of these, read before: after a rebalance, or in a replay.
    pub repeated: u64,
    /// Records of the topic that are no payments.
    pub unreadable: u64,
    /// Times that its members shared the partitions anew.
    pub rebalances: u64,
    /// Reads that failed; each is tried again.
    pub errors: u64,
    /// The last of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// What it made of the payments, each counted once.
    pub work: Work,
}

/// What a group made of payments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[schema(as = DemoWork)]
pub enum Work {
    /// What each account has paid.
    Orders {
        /// Accounts that have paid.
        accounts: u32,
        /// All that was paid, in cents.
        total_cents: u64,
        /// The account that has paid the most.
        most: Option<Paid>,
    },
    /// Payments that are large.
    Notifications {
        /// From this amount on, in cents.
        above_cents: u64,
        /// How many there were.
        sent: u64,
        /// The last of them, the newest first.
        latest: Vec<Paid>,
    },
    /// How payments are spread over merchants.
    Analytics {
        /// Those with the largest sums first.
        merchants: Vec<Merchant>,
        /// Times that it went back and read again.
        replays: u64,
        /// Partitions in which a replay found as many payments, of the same sum.
        partitions_verified: u64,
        /// Partitions in which it did not.
        partitions_mismatched: u64,
    },
}

/// Who paid how much.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = DemoPaid)]
pub struct Paid {
    /// The account.
    pub name: String,
    /// Amount in cents.
    pub cents: u64,
}

/// Payments to one merchant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = DemoMerchant)]
pub struct Merchant {
    /// Its name.
    pub name: String,
    /// How many.
    pub count: u64,
    /// Sum in cents.
    pub cents: u64,
    /// Median in cents.
    pub p50_cents: u64,
    /// 99th percentile in cents.
    pub p99_cents: u64,
}
