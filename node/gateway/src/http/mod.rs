//! The routes and what they have in common.

pub(crate) mod health;
pub mod problem;

use crate::app::AppState;
use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::routing::get;
use problem::Problem;

/// Every route of the gateway.
pub fn routes(app: AppState) -> Router {
    Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .merge(crate::ingest::routes())
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(app)
}

async fn no_such_path(uri: Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no-such-path", format!("there is nothing at {}", uri.path()))
        .hint("GET /docs lists every path")
}

async fn no_such_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} does not take {method}", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", detail)
        .hint("GET /docs lists the methods of every path")
}
