//! `/v1/demo`: the demonstration, for the dashboard's button. What it is: [`crate::demo`].

use super::extract::{Admitted, Reading};
use super::problem::Problem;
use crate::app::{App, AppState};
use crate::demo::{Ask, Refused, StartError, Status};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(1);

/// Show the demonstration
///
/// Whether one runs, at which rate and with which latencies, and what its groups do. A cluster has one at a time;
/// if another gateway runs it, `elsewhere` says which.
#[utoipa::path(
    get,
    path = "/v1/demo",
    tag = "demonstration",
    responses(
        (status = 200, description = "Its state", body = Status),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn show(State(app): State<AppState>, _: Reading) -> Result<Json<Status>, Problem> {
    status(&app).await
}

/// Start the demonstration, or change its rate
///
/// In development mode only. It stops by itself after 15 minutes, or those that are asked for.
#[utoipa::path(
    put,
    path = "/v1/demo",
    tag = "demonstration",
    request_body(content = Ask),
    responses(
        (status = 200, description = "Its state", body = Status),
        (status = 403, description = "This gateway is not in development mode", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Another gateway runs one", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn put(State(app): State<AppState>, admitted: Admitted) -> Result<Json<Status>, Problem> {
    allowed(&app)?;
    let ask: Ask = admitted.json()?;
    if !ask.running {
        return stopped(&app).await;
    }
    app.demo.run(&app.client, &ask).await?;
    status(&app).await
}

/// Stop the demonstration
///
/// Answers when it has ended. Without one nothing happens.
#[utoipa::path(
    delete,
    path = "/v1/demo",
    tag = "demonstration",
    responses(
        (status = 200, description = "Its state", body = Status),
        (status = 403, description = "This gateway is not in development mode", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Another gateway runs it", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn stop(State(app): State<AppState>, _: Admitted) -> Result<Json<Status>, Problem> {
    allowed(&app)?;
    stopped(&app).await
}

async fn status(app: &App) -> Result<Json<Status>, Problem> {
    Ok(Json(app.demo.status(&app.client).await?))
}

async fn stopped(app: &App) -> Result<Json<Status>, Problem> {
    let was_here = app.demo.stop().await;
    let status = app.demo.status(&app.client).await?;
    match status.elsewhere() {
        Some(holder) if !was_here => Err(Refused::Start(StartError::Elsewhere(holder.clone())).into()),
        _ => Ok(Json(status)),
    }
}

fn allowed(app: &App) -> Result<(), Problem> {
    if app.demo.is_allowed() {
        return Ok(());
    }
    let detail = "the demonstration is for development mode only";
    Err(Problem::new(StatusCode::FORBIDDEN, "development-only", detail)
        .hint("start the gateway with --ingest-development true, or run `strandline demo`"))
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Problem {
        match refused {
            Refused::Invalid(detail) => Problem::invalid(detail),
            Refused::Start(StartError::Cluster(error)) => error.into(),
            Refused::Start(error @ StartError::Rate(_)) => {
                Problem::invalid(format!("ratePerMinute: {error}"))
            }
            Refused::Start(StartError::Elsewhere(holder)) => {
                let detail = format!("a demonstration of this cluster runs already: {}", holder.by);
                let hint = format!("stop it there ({}), or wait until it ends", holder.by);
                Problem::new(StatusCode::CONFLICT, "demo-elsewhere", detail)
                    .hint(hint)
                    .with("elsewhere", serde_json::to_value(holder).unwrap_or_default())
            }
            Refused::Closed => {
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", "this gateway is being stopped")
                    .hint("use another gateway")
                    .retry_after(SOON)
            }
        }
    }
}
