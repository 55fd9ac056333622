//! The routes and what they have in common.

pub mod admission;
mod cloudevents;
mod consume;
mod dashboard;
mod demo;
mod docs;
mod event;
pub mod extract;
mod groups;
pub(crate) mod health;
pub(crate) mod idempotency;
pub(crate) mod instances;
mod live;
mod metrics;
pub mod problem;
mod produce;
mod topics;

use crate::app::AppState;
use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::routing::{get, post};
use problem::Problem;

/// Every route of the gateway.
pub fn routes(app: AppState) -> Router {
    Router::new()
        .route("/produce", post(produce::produce))
        .route("/consume", get(consume::consume))
        .route("/v1/topics", get(topics::list).post(topics::create))
        .route("/v1/topics/{topic}", get(topics::describe).delete(topics::delete))
        .route("/v1/topics/{topic}/records", post(produce::produce_to).get(consume::consume_from))
        .route("/v1/topics/{topic}/offsets", get(topics::offsets))
        .route("/v1/groups", get(groups::list))
        .route("/v1/groups/{group}", get(groups::describe).delete(groups::delete))
        .route("/v1/groups/{group}/offsets", get(groups::offsets).put(groups::set_offsets))
        .route("/v1/groups/{group}/consumers", post(groups::join))
        .route("/v1/groups/{group}/consumers/{consumer}", axum::routing::delete(groups::leave))
        .route("/v1/groups/{group}/consumers/{consumer}/records", get(groups::poll))
        .route("/v1/groups/{group}/consumers/{consumer}/offsets", post(groups::commit))
        .route("/v1/groups/{group}/lag", get(live::lag))
        .route("/v1/cluster", get(topics::cluster))
        .route("/v1/cluster/topics", get(live::topics))
        .route("/v1/cluster/partitions", get(live::partitions))
        .route("/v1/cluster/groups", get(live::groups))
        .route("/v1/live", get(live::stream))
        .route("/v1/demo", get(demo::show).put(demo::put).delete(demo::stop))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::metrics))
        .route("/openapi.json", get(docs::openapi))
        .route("/docs", get(docs::docs))
        .route("/", get(dashboard::page))
        .route("/assets/{file}", get(dashboard::asset))
        .merge(crate::ingest::routes())
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(axum::middleware::from_fn_with_state(app.clone(), metrics::counted))
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
