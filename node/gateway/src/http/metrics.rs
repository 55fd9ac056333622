//! `GET /metrics`: the gateway, the node that it is mounted in, and their process, for Prometheus.

use super::problem::Problem;
use crate::app::AppState;
use crate::metrics::Taken;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body::Body as _;
use strandline_metrics::{Format, Page, Source};
use tokio::time::Instant;

/// Show metrics
///
/// In Prometheus's text format, or in OpenMetrics where `Accept` names it.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "health",
    responses(
        (status = 200, description = "All metrics; ops/docs/metrics.md says what they mean", content((String = "text/plain"), (String = "application/openmetrics-text"))),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(crate) async fn metrics(State(app): State<AppState>, headers: HeaderMap) -> impl IntoResponse {
    // One at a time: whoever scrapes often takes no more than one thread.
    let _alone = app.scraping.lock().await;
    let accepts = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = Format::accepted(accepts);
    let own: &dyn Source = &*app;
    let page = Page::of(app.sources.iter().map(|source| &**source).chain([own]));
    ([(CONTENT_TYPE, format.content_type()), (CACHE_CONTROL, "no-store")], page.render(format))
}

/// Around every route: counts the request once the head of its answer is there.
pub(super) async fn counted(State(app): State<AppState>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let method: Method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let received = request.body().size_hint().exact().unwrap_or(0);
    let response = next.run(request).await;
    let sent = response.body().size_hint().exact().unwrap_or(0);
    app.meters.answered(&Taken {
        method: &method,
        route: route.as_ref().map(MatchedPath::as_str),
        status: response.status(),
        took: began.elapsed(),
        bytes: (received, sent),
    });
    response
}
