//! Quotas of clients (KIP-13, KIP-546): bytes a second and node that a user, a client id, or both may send or
//! take.

use crate::command::Rejection;
use crate::image::Image;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

pub const PRODUCER_BYTE_RATE: &str = "producer_byte_rate";
pub const CONSUMER_BYTE_RATE: &str = "consumer_byte_rate";
pub const KEYS: [&str; 2] = [PRODUCER_BYTE_RATE, CONSUMER_BYTE_RATE];

/// Entities with quotas, and bytes of a name.
pub const MAX_ENTITIES: usize = 10_000;
pub const MAX_NAME_BYTES: usize = 1024;

/// Whom a quota is of: at least one of the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QuotaEntity {
    pub user: Option<QuotaName>,
    pub client_id: Option<QuotaName>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum QuotaName {
    /// Whoever has no quota of their own; each has it for themselves.
    Default,
    Named(Arc<str>),
}

/// Bytes a second (at least 1), by key.
pub type QuotaValues = BTreeMap<Arc<str>, u64>;

/// The quota of exactly this entity.
pub fn rate(image: &Image, entity: &QuotaEntity, key: &str) -> Option<u64> {
    image.quotas.get(entity)?.get(key).copied()
}

/// Whether an entity and its changes may be agreed.
pub fn check(entity: &QuotaEntity, changes: &BTreeMap<Arc<str>, Option<u64>>) -> Result<(), Rejection> {
    let names = [&entity.user, &entity.client_id];
    if names.iter().all(|name| name.is_none()) {
        return Err(Rejection::Invalid("a quota is of a user, a client id, or both".to_owned()));
    }
    let too_long = |name: &QuotaName| matches!(name, QuotaName::Named(name) if name.len() > MAX_NAME_BYTES);
    if names.into_iter().flatten().any(too_long) {
        return Err(Rejection::Invalid(format!("a name has at most {MAX_NAME_BYTES} bytes")));
    }
    for (key, rate) in changes {
        if !KEYS.contains(&&**key) {
            return Err(Rejection::Invalid(format!(
                "there is no quota {key}; there are {}",
                KEYS.join(", ")
            )));
        }
        if *rate == Some(0) {
            return Err(Rejection::Invalid(format!("{key} must be at least 1")));
        }
    }
    Ok(())
}
