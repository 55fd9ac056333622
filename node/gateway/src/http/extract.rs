//! What handlers take: bodies that were let in, and parameters whose errors are problem documents.

use super::admission::{Class, Permit, too_large};
use super::problem::Problem;
use crate::app::AppState;
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::{BodyExt, Limited};
use serde::de::DeserializeOwned;

/// The body of a write that was let in.
#[derive(Debug)]
pub struct Admitted {
    /// The whole body.
    pub body: Bytes,
    /// The request's headers.
    pub headers: HeaderMap,
    /// To be kept until the answer is there.
    pub permit: Permit,
}

impl FromRequest<AppState> for Admitted {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &AppState) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let admission = &app.admission;
        let size = body.size_hint();
        let bytes = admission.body_bytes(size.exact())?;
        let permit = admission.admit(&parts, Class::Write, bytes)?;
        let read = tokio::time::timeout(app.config.request_timeout, collect(body, app.config.max_body_bytes));
        let body = read.await.unwrap_or_else(|_| {
            let detail = format!("the body did not arrive within {:?}", app.config.request_timeout);
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body-too-slow", detail)
                .hint("nothing was done; send it again"))
        })?;
        Ok(Admitted { body, headers: parts.headers, permit })
    }
}

async fn collect(body: Body, limit: usize) -> Result<Bytes, Problem> {
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_large(limit)),
        Err(error) => Err(Problem::invalid(format!("the body cannot be read: {error}"))),
    }
}

impl Admitted {
    /// The body as JSON; an empty one as `{}`.
    ///
    /// # Errors
    /// 400 where it is no JSON, or not the JSON that was expected.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let body: &[u8] = if self.body.trim_ascii().is_empty() { b"{}" } else { &self.body };
        serde_json::from_slice(body).map_err(|error| Problem::invalid(format!("the body: {error}")))
    }
}

/// A read that was let in.
#[derive(Debug)]
pub struct Reading(pub Permit);

impl FromRequestParts<AppState> for Reading {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        app.admission.admit(parts, Class::Read, 0).map(Reading)
    }
}

/// Parameters of the query.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<AppState> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &AppState) -> Result<Self, Problem> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(value)) => Ok(Params(value)),
            Err(rejection) => Err(Problem::invalid(rejection.body_text())),
        }
    }
}

/// Parts of the path.
#[derive(Debug)]
pub struct Segments<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<AppState> for Segments<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &AppState) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, app).await {
            Ok(Path(value)) => Ok(Segments(value)),
            Err(rejection) => Err(Problem::invalid(rejection.body_text())),
        }
    }
}
