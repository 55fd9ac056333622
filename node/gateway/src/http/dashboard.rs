//! The dashboard's files, from inside the binary.
//!
//! The page may load nothing from anywhere else, and run nothing that is not a file of it (Content-Security-Policy).
//! Names of assets contain a digest of what is in them: a browser asks for each once.

use super::problem::Problem;
use axum::body::Body;
use axum::extract::Path;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG,
    IF_NONE_MATCH, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use rust_embed::RustEmbed;
use std::collections::BTreeMap;
use std::io::Write;
use std::sync::LazyLock;

#[derive(RustEmbed)]
#[folder = "dashboard/dist/"]
struct Files;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; font-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file, and the same compressed if that is smaller.
struct Served {
    plain: Bytes,
    gzip: Option<Bytes>,
    kind: HeaderValue,
    tag: String,
}

/// Made with the first request for any of them: a gateway whose dashboard nobody opens does not pay for it.
static FILES: LazyLock<BTreeMap<String, Served>> = LazyLock::new(|| {
    let served = Files::iter().filter_map(|name| {
        let file = Files::get(&name)?;
        let digest = file.metadata.sha256_hash();
        let tag = digest[..12].iter().map(|byte| format!("{byte:02x}")).collect();
        let plain = match file.data {
            std::borrow::Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            std::borrow::Cow::Owned(bytes) => bytes.into(),
        };
        let gzip = gzip(&plain).filter(|gzip| gzip.len() < plain.len());
        let kind = HeaderValue::from_static(kind(&name));
        Some((name.into_owned(), Served { plain, gzip, kind, tag }))
    });
    served.collect()
});

fn gzip(plain: &[u8]) -> Option<Bytes> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).ok()?;
    encoder.finish().ok().map(Bytes::from)
}

fn kind(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, end)| end) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("woff2") => "font/woff2",
        _ => "application/octet-stream",
    }
}

/// The page itself; which part of it is shown stands behind `#`.
pub(crate) async fn page(headers: HeaderMap) -> Result<Response, Problem> {
    serve("index.html", "no-cache", &headers)
}

/// A script, a style, a font or an image of the page.
pub(crate) async fn asset(Path(file): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    serve(&format!("assets/{file}"), "public, max-age=31536000, immutable", &headers)
}

fn serve(name: &str, cache: &'static str, asked: &HeaderMap) -> Result<Response, Problem> {
    let Some(file) = FILES.get(name) else {
        let detail = format!("the dashboard has no file {name}");
        return Err(Problem::new(StatusCode::NOT_FOUND, "no-such-path", detail).hint("reload the page"));
    };
    let has = |header: HeaderName, wanted: &str| {
        let values = asked.get_all(header);
        values.iter().filter_map(|value| value.to_str().ok()).any(|value| value.contains(wanted))
    };
    let compressed = file.gzip.as_ref().filter(|_| has(ACCEPT_ENCODING, "gzip"));
    // Each form has a tag of its own.
    let tag = format!("\"{}{}\"", file.tag, if compressed.is_some() { "-gz" } else { "" });
    let unchanged = has(IF_NONE_MATCH, &tag);
    let body = compressed.unwrap_or(&file.plain).clone();
    let mut response = Response::new(if unchanged { Body::empty() } else { Body::from(body) });
    let headers = response.headers_mut();
    let fixed = [
        (CACHE_CONTROL, cache),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (VARY, "accept-encoding"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(CONTENT_TYPE, file.kind.clone());
    if let Ok(tag) = tag.parse() {
        headers.insert(ETAG, tag);
    }
    if compressed.is_some() {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    Ok(response)
}
