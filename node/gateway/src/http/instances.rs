//! Members of consumer groups that this gateway keeps for HTTP clients: bounded in number, and gone from their group
//! when nobody asks for them.
//!
//! ```text
//! join ─▶ kept ─▶ poll, commit, … one at a time ─▶ left, or idle for too long ─▶ out of the group
//! ```

use super::problem::Problem;
use axum::http::StatusCode;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use strandline_client::Consumer;
use tokio::time::Instant;

/// How long leaving a group may take before the session's end does it.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);
/// How often idle ones are looked for.
const SWEEP: Duration = Duration::from_secs(1);

/// Group and id.
type Name = (String, String);

/// The consumers that are kept.
#[derive(Debug)]
pub(crate) struct Instances {
    max: usize,
    idle: Duration,
    kept: Mutex<BTreeMap<Name, Arc<Instance>>>,
    next: AtomicU64,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Instance {
    /// `None` once it has left.
    consumer: tokio::sync::Mutex<Option<Consumer>>,
    used: Mutex<Instant>,
}

impl Instances {
    pub(crate) fn new(max: usize, idle: Duration) -> Instances {
        Instances { max, idle, kept: Mutex::default(), next: AtomicU64::new(1) }
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<Name, Arc<Instance>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a consumer; its id. `now_ms` keeps ids apart from those that were given before a restart.
    pub(crate) fn keep(&self, group: &str, consumer: Consumer, now_ms: i64) -> Result<String, Problem> {
        let mut kept = self.kept();
        if kept.len() >= self.max {
            let detail = format!("this gateway keeps {} consumers, as many as it may", kept.len());
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-consumers", detail)
                .hint("delete consumers that are not needed, or use another gateway")
                .retry_after(SWEEP));
        }
        let id = format!("{now_ms:x}-{}", self.next.fetch_add(1, Ordering::Relaxed));
        let consumer = tokio::sync::Mutex::new(Some(consumer));
        let instance = Arc::new(Instance { consumer, used: Mutex::new(Instant::now()) });
        kept.insert((group.to_owned(), id.clone()), instance);
        Ok(id)
    }

    /// The consumer, for one request at a time.
    pub(crate) fn get(&self, group: &str, id: &str) -> Result<Arc<Instance>, Problem> {
        let found = self.kept().get(&(group.to_owned(), id.to_owned())).cloned();
        found.ok_or_else(|| {
            let detail = format!("this gateway keeps no consumer {id} of group {group}");
            Problem::new(StatusCode::NOT_FOUND, "unknown-consumer", detail)
                .hint("it left, was idle for too long, or belongs to another gateway: join again with POST")
        })
    }

    /// Lets a consumer leave its group.
    pub(crate) async fn remove(&self, group: &str, id: &str) -> Result<(), Problem> {
        let instance = self.get(group, id)?;
        self.kept().remove(&(group.to_owned(), id.to_owned()));
        instance.leave().await;
        Ok(())
    }

    /// Lets idle consumers leave, for ever.
    pub(crate) async fn expire(&self) {
        loop {
            tokio::time::sleep(SWEEP.min(self.idle)).await;
            let now = Instant::now();
            let idle: Vec<(Name, Arc<Instance>)> = {
                let mut kept = self.kept();
                let idle = |instance: &Instance| {
                    let silent = now.saturating_duration_since(*instance.used());
                    silent >= self.idle && instance.consumer.try_lock().is_ok()
                };
                let names: Vec<Name> = kept
                    .iter()
                    .filter(|(_, instance)| idle(instance))
                    .map(|(name, _)| name.clone())
                    .collect();
                names.into_iter().filter_map(|name| kept.remove_entry(&name)).collect()
            };
            for ((group, id), instance) in idle {
                tracing::info!(group, id, "an idle consumer leaves its group");
                tokio::spawn(async move { instance.leave().await });
            }
        }
    }

    /// Lets all of them leave.
    pub(crate) async fn close(&self) {
        let all = std::mem::take(&mut *self.kept());
        futures::future::join_all(all.values().map(|instance| instance.leave())).await;
    }
}

impl Instance {
    fn used(&self) -> MutexGuard<'_, Instant> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the consumer, if no other request does.
    pub(crate) async fn with<T>(
        &self,
        act: impl AsyncFnOnce(&mut Consumer) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let Ok(mut consumer) = self.consumer.try_lock() else {
            let detail = "another request is using this consumer";
            return Err(Problem::new(StatusCode::CONFLICT, "consumer-busy", detail)
                .hint("use a consumer for one request at a time"));
        };
        let Some(consumer) = consumer.as_mut() else {
            return Err(Problem::new(
                StatusCode::NOT_FOUND,
                "unknown-consumer",
                "this consumer has left its group",
            ));
        };
        *self.used() = Instant::now();
        let done = act(consumer).await;
        *self.used() = Instant::now();
        done
    }

    async fn leave(&self) {
        let leaving = async {
            if let Some(consumer) = self.consumer.lock().await.take()
                && let Err(error) = consumer.close().await
            {
                tracing::debug!(%error, "a consumer did not leave its group cleanly");
            }
        };
        if tokio::time::timeout(LEAVE_WITHIN, leaving).await.is_err() {
            tracing::warn!("a consumer did not leave its group in time; its session ends by itself");
        }
    }
}
