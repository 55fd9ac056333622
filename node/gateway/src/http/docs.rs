//! `/openapi.json`: what the gateway takes and gives, for programs. `/docs`: the same for people, made from it, with
//! nothing fetched from anywhere.

use super::{consume, demo, event, groups, health, live, metrics, problem, produce, topics};
use axum::http::header::CONTENT_TYPE;
use axum::response::{Html, IntoResponse};
use serde_json::Value;
use std::fmt::Write;
use std::sync::LazyLock;
use utoipa::OpenApi;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Strandline over HTTP",
        description = "Events in and out of a Strandline cluster. A write is answered with 200 when it is on disk on \
                       every in-sync replica. Errors are problem documents (RFC 9457): `hint` says what to do, and \
                       at 429 and 5xx `may_have_happened` whether anything was written."
    ),
    paths(
        produce::produce,
        consume::consume,
        produce::produce_to,
        consume::consume_from,
        topics::list,
        topics::create,
        topics::describe,
        topics::delete,
        topics::offsets,
        groups::list,
        groups::describe,
        groups::delete,
        groups::offsets,
        groups::set_offsets,
        groups::join,
        groups::poll,
        groups::commit,
        groups::leave,
        live::lag,
        topics::cluster,
        live::topics,
        live::partitions,
        live::groups,
        live::stream,
        demo::show,
        demo::put,
        demo::stop,
        health::alive,
        health::ready,
        metrics::metrics,
    ),
    components(schemas(event::Event, event::Shown, live::PartitionState, problem::Problem))
)]
struct Api;

/// The document.
pub(crate) fn document() -> utoipa::openapi::OpenApi {
    let mut api = Api::openapi();
    api.merge(crate::ingest::Api::openapi());
    api
}

static JSON: LazyLock<String> = LazyLock::new(|| document().to_json().unwrap_or_default());
static PAGE: LazyLock<String> = LazyLock::new(|| page(&serde_json::from_str(&JSON).unwrap_or_default()));

pub(crate) async fn openapi() -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], JSON.as_str())
}

pub(crate) async fn docs() -> Html<&'static str> {
    Html(PAGE.as_str())
}

const STYLE: &str = "\
:root{color-scheme:light dark}body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}\
h2{margin-top:2.5rem;border-top:1px solid #8886;padding-top:1rem}code,pre{font:14px/1.45 ui-monospace,monospace}\
pre{background:#8881;padding:.75rem;overflow:auto}table{border-collapse:collapse}\
td,th{text-align:left;vertical-align:top;padding:.2rem .8rem .2rem 0}.m{font-weight:700}";

const EXAMPLES: &str = r#"curl -d '{"key":"user1","value":{"action":"login"}}' localhost:8080/produce
curl 'localhost:8080/consume?partition=0&offset=0'
curl -d '[{"value":1},{"value":2}]' localhost:8080/v1/topics/events/records
curl -H 'Idempotency-Key: order-17' -d '{"value":"once"}' localhost:8080/produce"#;

/// The page. Everything in it comes from `api`, a document of this program.
fn page(api: &Value) -> String {
    let mut html = String::new();
    let title = escaped(text(&api["info"]["title"]));
    let about = escaped(text(&api["info"]["description"]));
    // Writing to a string does not fail.
    let _ = write!(
        html,
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
         <title>{title}</title><style>{STYLE}</style><h1>{title}</h1><p>{about}</p>\
         <p>For programs: <a href=/openapi.json>openapi.json</a></p><pre>{}</pre>",
        escaped(EXAMPLES)
    );
    for (path, operations) in members(&api["paths"]) {
        for (method, operation) in members(operations) {
            operation_html(&mut html, path, method, operation);
        }
    }
    html.push_str("<h2>Problems</h2><table>");
    for (kind, what) in problem::KINDS {
        let _ = write!(html, "<tr id='{kind}'><td><code>{kind}</code><td>{}", escaped(what));
    }
    html.push_str("</table></html>");
    html
}

fn operation_html(html: &mut String, path: &str, method: &str, operation: &Value) {
    let _ = write!(
        html,
        "<h2><code><span class=m>{}</span> {}</code></h2><p>{}</p><p>{}</p>",
        method.to_uppercase(),
        escaped(path),
        escaped(text(&operation["summary"])),
        escaped(text(&operation["description"]))
    );
    if let Some(parameters) = operation["parameters"].as_array() {
        html.push_str("<table>");
        for parameter in parameters {
            let _ = write!(
                html,
                "<tr><td><code>{}</code><td>{}<td>{}",
                escaped(text(&parameter["name"])),
                escaped(text(&parameter["in"])),
                escaped(text(&parameter["description"]))
            );
        }
        html.push_str("</table>");
    }
    html.push_str("<table>");
    for (status, response) in members(&operation["responses"]) {
        let _ = write!(html, "<tr><td><code>{status}</code><td>{}", escaped(text(&response["description"])));
    }
    html.push_str("</table>");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_words_and_says_what_its_errors_are() {
        let api: Value = serde_json::from_str(&JSON).unwrap();
        let mut operations = 0;
        for (path, methods) in members(&api["paths"]) {
            for (method, operation) in members(methods) {
                operations += 1;
                let summary = text(&operation["summary"]);
                assert!(summary.len() > 5, "{method} {path} has no summary");
                assert!(PAGE.contains(&escaped(summary)), "{method} {path} is not on the page");
                assert!(operation["responses"].as_object().is_some_and(|r| !r.is_empty()), "{method} {path}");
            }
        }
        assert!(operations >= 30, "{operations}");
        assert!(
            !PAGE.contains("src=") && !PAGE.contains("http://") && !PAGE.contains("https://"),
            "self-contained"
        );
    }

    #[test]
    fn every_shape_that_is_referred_to_is_there_and_names_of_shapes_are_not_shared() {
        let api: Value = serde_json::from_str(&JSON).unwrap();
        let referred: Vec<&str> =
            JSON.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert!(referred.len() > 50, "{}", referred.len());
        for pointer in referred {
            assert!(api.pointer(pointer).is_some(), "{pointer}");
        }
        // Of two shapes with one name the last would be both.
        for (shape, member) in
            [("Group", "coordinator"), ("DemoGroup", "phase"), ("IngestPartition", "processedOffset")]
        {
            assert!(
                api["components"]["schemas"][shape]["properties"][member].is_object(),
                "{shape}.{member}"
            );
        }
    }
}
