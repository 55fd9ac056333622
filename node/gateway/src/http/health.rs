//! `/healthz`: the process answers. `/readyz`: it reaches the cluster.

use super::problem::Problem;
use crate::app::AppState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// Answers younger than this are given again: whoever asks often does not make the gateway ask often.
const FRESH: Duration = Duration::from_secs(1);
/// How long the cluster may take to say that it is there.
const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub(crate) struct Health {
    status: &'static str,
}

/// What was last found out about the cluster, and when.
#[derive(Debug, Default)]
pub(crate) struct Readiness(Mutex<Option<(Instant, Result<(), String>)>>);

/// Say that the process answers
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "health",
    responses(
        (status = 200, description = "It does", body = Health),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn alive() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Say whether the cluster can be reached
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "health",
    responses(
        (status = 200, description = "It can", body = Health),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn ready(State(app): State<AppState>) -> Result<Json<Health>, Problem> {
    let mut last = app.readiness.0.lock().await;
    let found = match &*last {
        Some((at, found)) if at.elapsed() < FRESH => found.clone(),
        _ => {
            let found = match tokio::time::timeout(PATIENCE, app.client.refresh()).await {
                Ok(refreshed) => refreshed.map_err(|error| error.to_string()),
                Err(_) => Err(format!("no node answered within {PATIENCE:?}")),
            };
            *last = Some((Instant::now(), found.clone()));
            found
        }
    };
    match found {
        Ok(()) => Ok(Json(Health { status: "ready" })),
        Err(why) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", why)
            .hint("a majority of the nodes must run; ask again in a moment")
            .retry_after(FRESH)
            .may_have_happened(false)),
    }
}
