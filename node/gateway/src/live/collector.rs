//! Asks the cluster, and draws what it hears into the picture. Three loops of one task, so that an answer that is late
//! holds up nothing but the next question of its kind.

use super::committed::Offsets;
use super::picture::{Picture, Silence};
use crate::app::App;
use futures::stream::{self, StreamExt};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use strandline_client::{ErrorKind, NodeView};
use tokio::time::{Instant, MissedTickBehavior};

/// Between two looks at the nodes: what happens is shown so soon.
const LOOK: Duration = Duration::from_millis(200);
/// How long a node may take to answer one; two in a row count.
const ANSWER: Duration = Duration::from_millis(300);
const TICK: Duration = Duration::from_secs(1);
/// For the topics, the ends of partitions, and what a group has committed.
const DETAIL: Duration = Duration::from_secs(2);
/// Groups that are looked at; the first by name.
const MAX_GROUPS: usize = 200;
/// Nodes and groups that are asked at once.
const CONCURRENCY: usize = 16;

/// Runs until nobody looks any more, or the gateway stops.
pub(super) async fn collect(running: super::Running) {
    let app = running.app.clone();
    tracing::debug!("someone looks at the dashboard");
    tokio::select! {
        biased;
        () = app.live.stop.cancelled() => {}
        () = look_at_nodes(&app) => {}
        () = look_at_ends(&app) => {}
        () = look_at_groups(&app) => {}
        () = tick(&app) => {}
    }
    tracing::debug!("nobody looks at the dashboard");
}

/// Ends when nobody looks: the only one of the loops that does.
async fn tick(app: &Arc<App>) {
    let mut times = every(TICK);
    let mut last = Instant::now();
    while !app.live.abandoned() {
        let now = times.tick().await;
        let elapsed = now.saturating_duration_since(std::mem::replace(&mut last, now));
        let reading = app.meters.reading(app.ingest.as_ref().map(|ingest| ingest.enqueued()));
        let now_ms = app.client.now_ms();
        let view = app.ingest.as_ref().and_then(|ingest| ingest.view());
        app.live.update(|picture| {
            if let Some((name, next)) = &view {
                let offsets = picture.named(next);
                picture.reader_is_at(name, offsets);
            }
            picture.tick(now_ms, elapsed, reading).map(|json| ("tick", json)).into_iter().collect()
        });
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut times = tokio::time::interval(period);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    times
}

/// The picture as it is, for a question that it leads to.
fn picture<T>(app: &App, read: impl FnOnce(&Picture) -> T) -> Option<T> {
    app.live.shared.lock().run.as_ref().map(|run| read(&run.picture))
}

fn cluster(app: &App, change: impl FnOnce(&mut Picture) -> Option<Vec<u8>>) {
    app.live.update(|picture| change(picture).map(|json| ("cluster", json)).into_iter().collect());
}

async fn look_at_nodes(app: &Arc<App>) {
    let admin = app.client.admin();
    let bootstrap = admin.bootstrap_addresses();
    let mut times = every(LOOK);
    loop {
        times.tick().await;
        let Some(known) = picture(app, Picture::addresses) else { return };
        // While no node is known, or none of them answers, the cluster is looked for where it was at first.
        let asked = stream::iter(known.clone())
            .map(|(id, address)| {
                let admin = &admin;
                async move { (id, view(admin.node_view(&address, false, ANSWER).await)) }
            })
            .buffer_unordered(CONCURRENCY)
            .collect::<BTreeMap<u64, _>>()
            .await;
        let mut others = Vec::new();
        if asked.values().all(Result::is_err) {
            for address in bootstrap.iter().filter(|address| !known.values().any(|a| a == &***address)) {
                others.extend(admin.node_view(address, false, ANSWER).await.ok());
            }
        }
        let newest =
            asked.iter().filter_map(|(id, answer)| Some((answer.as_ref().ok()?.metadata_index, *id)));
        let source = newest.max().and_then(|(_, id)| known.get(&id).cloned());
        cluster(app, |picture| picture.heard(app.client.now_ms(), asked, others));
        let stale = picture(app, Picture::topics_are_stale).unwrap_or(false);
        let source = source.or_else(|| bootstrap.first().map(|address| address.to_string()));
        if let Some(address) = source.filter(|_| stale)
            && let Ok(view) = admin.node_view(&address, true, DETAIL).await
        {
            cluster(app, |picture| picture.has_topics(app.client.now_ms(), view));
        }
        app.live.has_looked();
    }
}

fn view(answer: strandline_client::Result<NodeView>) -> Result<NodeView, Silence> {
    answer.map_err(|error| Silence {
        timed_out: matches!(error.kind(), ErrorKind::TimedOut),
        error: error.message().to_owned(),
    })
}

async fn look_at_ends(app: &Arc<App>) {
    let admin = app.client.admin();
    let mut times = every(TICK);
    loop {
        times.tick().await;
        let Some((brokers, topics)) = picture(app, Picture::layout) else { return };
        let ends = admin.high_watermarks(&brokers, &topics, DETAIL).await;
        app.live.update(|picture| {
            picture.ends_at(ends);
            Vec::new()
        });
    }
}

async fn look_at_groups(app: &Arc<App>) {
    let admin = app.client.admin();
    let mut times = every(TICK);
    loop {
        times.tick().await;
        let Ok(Ok(groups)) = tokio::time::timeout(DETAIL, admin.list_groups()).await else { continue };
        let left_out = groups.len() > MAX_GROUPS;
        let looked_at = groups.into_iter().take(MAX_GROUPS).map(|g| (g.group, g.state));
        let mut states: BTreeMap<String, String> = looked_at.collect();
        let names: Vec<String> = states.keys().cloned().collect();
        if let Some((name, _)) = app.ingest.as_ref().and_then(|ingest| ingest.view()) {
            states.insert(name.to_owned(), "View".to_owned());
        }
        app.live.update(|picture| {
            picture.readers_are(states, left_out);
            Vec::new()
        });
        let deadline = Instant::now() + DETAIL;
        let mut answers = stream::iter(names)
            .map(|group| {
                let admin = &admin;
                async move {
                    let committed = tokio::time::timeout_at(deadline, admin.group_offsets(&group)).await;
                    // Of one that does not answer it stays as it was.
                    Some((group, committed.ok()?.ok()?))
                }
            })
            .buffer_unordered(CONCURRENCY);
        while let Some(answer) = answers.next().await {
            let Some((group, committed)) = answer else { continue };
            let offsets: Offsets =
                committed.into_iter().map(|(partition, c)| (partition, c.position.offset)).collect();
            app.live.update(|picture| {
                picture.reader_is_at(&group, offsets);
                Vec::new()
            });
        }
    }
}
