//! How long a client is held back that sends or takes more than its quota (KIP-13, KIP-219).
//!
//! Each quota that applies has a bucket: it fills at the quota's rate and holds a second's worth; whoever takes
//! more than is in it is in debt, and is not read from until the debt is filled. Pure: times are handed in.
//!
//! Which quota applies is Kafka's order: user and client id, user and any client id, user, any user and client
//! id, any user and any client id, any user, client id, any client id. There is no authentication yet: every
//! user is [`ANONYMOUS`].

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use strandline_metadata::quotas::{CONSUMER_BYTE_RATE, PRODUCER_BYTE_RATE, QuotaEntity, QuotaName};
use strandline_metadata::{Image, quotas};

pub const ANONYMOUS: &str = "ANONYMOUS";
/// Longest time that a client is held back for one request.
const MAX_THROTTLE_MS: u64 = 30_000;
/// Buckets held at once; beyond it, those that are full are forgotten, which changes nothing for anybody.
const MAX_BUCKETS: usize = 10_000;

/// Who shares a bucket: a key, and the user and client id that its quota names or stands for.
type BucketKey = (&'static str, Option<Arc<str>>, Option<Arc<str>>);

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Bytes times a thousand; negative is debt.
    level: i128,
    rate: u64,
    at_ms: u64,
}

impl Bucket {
    fn full(rate: u64, now_ms: u64) -> Self {
        Bucket { level: i128::from(rate) * 1000, rate, at_ms: now_ms }
    }

    /// What has come in since; never more than a second's worth.
    fn refill(&mut self, rate: u64, now_ms: u64) {
        let elapsed = i128::from(now_ms.saturating_sub(self.at_ms));
        self.level = (self.level + elapsed * i128::from(rate)).min(i128::from(rate) * 1000);
        (self.rate, self.at_ms) = (rate, now_ms.max(self.at_ms));
    }

    fn take(&mut self, bytes: usize) -> Duration {
        self.level -= bytes as i128 * 1000;
        if self.level >= 0 {
            return Duration::ZERO;
        }
        let ms = -self.level / i128::from(self.rate.max(1));
        Duration::from_millis(u64::try_from(ms).unwrap_or(u64::MAX).min(MAX_THROTTLE_MS))
    }
}

/// The buckets of this node.
#[derive(Debug, Default)]
pub struct Quotas {
    buckets: Mutex<BTreeMap<BucketKey, Bucket>>,
}

impl Quotas {
    /// A client has sent record bytes: how long it is to be held back.
    pub fn produced(&self, image: &Image, client_id: &str, bytes: usize, now_ms: u64) -> Duration {
        self.take(image, PRODUCER_BYTE_RATE, client_id, bytes, now_ms)
    }

    /// A client is about to get record bytes.
    pub fn consumed(&self, image: &Image, client_id: &str, bytes: usize, now_ms: u64) -> Duration {
        self.take(image, CONSUMER_BYTE_RATE, client_id, bytes, now_ms)
    }

    fn take(&self, image: &Image, key: &'static str, client_id: &str, bytes: usize, now_ms: u64) -> Duration {
        if bytes == 0 || image.quotas.is_empty() {
            return Duration::ZERO;
        }
        let Some((bucket_key, rate)) = applies(image, key, client_id) else { return Duration::ZERO };
        let mut buckets = self.buckets.lock();
        if buckets.len() >= MAX_BUCKETS {
            buckets.retain(|_, bucket| {
                let rate = bucket.rate;
                bucket.refill(rate, now_ms);
                bucket.level < i128::from(rate) * 1000
            });
        }
        let bucket = buckets.entry(bucket_key).or_insert_with(|| Bucket::full(rate, now_ms));
        bucket.refill(rate, now_ms);
        bucket.take(bytes)
    }
}

/// The quota that applies to a client, and the bucket that it shares with whom the quota names.
fn applies(image: &Image, key: &'static str, client_id: &str) -> Option<(BucketKey, u64)> {
    let (user, client): (Arc<str>, Arc<str>) = (ANONYMOUS.into(), client_id.into());
    let named = |name: &Arc<str>| Some(QuotaName::Named(name.clone()));
    let any = || Some(QuotaName::Default);
    let order = [
        (named(&user), named(&client)),
        (named(&user), any()),
        (named(&user), None),
        (any(), named(&client)),
        (any(), any()),
        (any(), None),
        (None, named(&client)),
        (None, any()),
    ];
    order.into_iter().find_map(|(of_user, of_client)| {
        let shares =
            (key, of_user.as_ref().map(|_| user.clone()), of_client.as_ref().map(|_| client.clone()));
        let entity = QuotaEntity { user: of_user, client_id: of_client };
        let rate = quotas::rate(image, &entity, key)?;
        Some((shares, rate))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(quotas: &[(Option<&str>, Option<&str>, u64)]) -> Image {
        let mut image = Image::default();
        for (user, client, rate) in quotas {
            let name = |name: &&str| match *name {
                "*" => QuotaName::Default,
                name => QuotaName::Named(name.into()),
            };
            let entity = QuotaEntity { user: user.as_ref().map(name), client_id: client.as_ref().map(name) };
            let values = [(Arc::from(PRODUCER_BYTE_RATE), *rate)].into();
            image.quotas.insert_mut(entity, Arc::new(values));
        }
        image
    }

    #[test]
    fn a_client_above_its_rate_is_held_back_until_its_debt_is_filled() {
        let (quotas, image) = (Quotas::default(), image(&[(None, Some("fast"), 1000)]));
        let take = |bytes, now| quotas.produced(&image, "fast", bytes, now).as_millis();
        assert_eq!(take(1000, 0), 0, "a second's worth is there at first");
        assert_eq!(take(500, 0), 500);
        assert_eq!(take(500, 500), 500);
        assert_eq!(take(10, 10_000), 0, "no more than a second's worth is saved");
        assert_eq!(take(2990, 10_000), 2000);
        assert_eq!(take(usize::MAX / 4096, 10_000), u128::from(MAX_THROTTLE_MS));
        assert_eq!(quotas.produced(&image, "other", 1 << 30, 0), Duration::ZERO);
        assert_eq!(quotas.consumed(&image, "fast", 1 << 30, 0), Duration::ZERO, "another key");
    }

    #[test]
    fn the_most_specific_quota_applies() {
        let all = [
            (Some(ANONYMOUS), Some("c"), 1),
            (Some(ANONYMOUS), Some("*"), 2),
            (Some(ANONYMOUS), None, 3),
            (Some("*"), Some("c"), 4),
            (Some("*"), Some("*"), 5),
            (Some("*"), None, 6),
            (None, Some("c"), 7),
            (None, Some("*"), 8),
        ];
        for first in 0..all.len() {
            let (_, rate) = applies(&image(&all[first..]), PRODUCER_BYTE_RATE, "c").unwrap();
            assert_eq!(rate, first as u64 + 1);
        }
        assert_eq!(applies(&image(&[]), PRODUCER_BYTE_RATE, "c"), None);
    }

    #[test]
    fn a_quota_of_each_client_is_not_shared_and_one_of_a_user_is() {
        let quotas = Quotas::default();
        let each = image(&[(None, Some("*"), 1000)]);
        assert_eq!(quotas.produced(&each, "a", 1000, 0), Duration::ZERO);
        assert_eq!(quotas.produced(&each, "b", 1000, 0), Duration::ZERO);
        let shared = image(&[(Some("*"), None, 1000)]);
        assert_eq!(quotas.produced(&shared, "a", 1000, 0), Duration::ZERO);
        assert_eq!(quotas.produced(&shared, "b", 1000, 0), Duration::from_secs(1));
    }
}
