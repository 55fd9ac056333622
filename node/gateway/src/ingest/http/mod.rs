//! The routes of the pipeline. Shapes and examples: `ops/docs/ingest.md`.

mod events;
mod parameters;
mod questions;
mod status;

use super::pipeline::{Ingest, NoTopics, Stage};
use super::store::{Store, StoreError};
use crate::app::AppState;
use crate::http::problem::Problem;
use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};
use std::sync::Arc;
use std::time::Duration;
use utoipa::OpenApi;

/// The paths of the pipeline.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/api/events", post(events::post).get(questions::events))
        .route("/api/aggregations", get(questions::aggregations))
        .route("/register_event", post(events::register))
        .route("/get_status", get(status::get))
}

/// The pipeline's part of the gateway's document.
#[derive(OpenApi)]
#[openapi(paths(events::post, questions::events, questions::aggregations, events::register, status::get))]
pub(crate) struct Api;

/// The pipeline, where there is one.
fn pipeline(app: &AppState) -> Result<&Arc<Ingest>, Problem> {
    app.ingest.as_ref().ok_or_else(|| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no-ingestion", "this gateway does not ingest events")
            .hint("start it with --ingest-store sqlite:PATH or postgres://…, or use one that was")
    })
}

/// The store, or `None` where nothing was ever ingested.
fn store(ingest: &Ingest) -> Result<Option<Arc<dyn Store>>, Problem> {
    let not_yet = |why: String| unavailable(format!("the store is not open yet: {why}"));
    match ingest.stage() {
        Stage::Open(store) => Ok(Some(store)),
        Stage::Idle => Ok(None),
        Stage::Starting => Err(not_yet("the gateway has not found its topics so far".into())),
        Stage::Opening(why) => Err(not_yet(why)),
    }
}

fn unavailable(detail: String) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "store-unavailable", detail)
        .hint("try again in a moment; GET /get_status says how the store is")
        .retry_after(Duration::from_secs(1))
}

impl From<NoTopics> for Problem {
    fn from(error: NoTopics) -> Problem {
        match error {
            NoTopics::Cluster(error) => error.into(),
            NoTopics::NotSeen => {
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "cluster-not-ready", error.to_string())
                    .hint("try again in a moment")
                    .retry_after(Duration::from_secs(1))
            }
        }
    }
}

fn of_store(error: StoreError) -> Problem {
    match error {
        StoreError::TooManyGroups => {
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "too-many-groups", error.to_string())
                .hint("narrow it with clientId, metric, startDate and endDate, or group by less")
        }
        StoreError::Unavailable(_) | StoreError::Behind { .. } => unavailable(error.to_string()),
    }
}
