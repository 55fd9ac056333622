//! The stream as a browser gets it, from a gateway whose cluster is not there. Time is simulated.

use super::*;
use crate::config::GatewayConfig;
use crate::http::routes;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use futures::FutureExt;
use http_body_util::BodyExt;
use serde_json::Value;
use std::io;
use strandline_client::Client;
use tower::ServiceExt;

fn app() -> Arc<App> {
    let refused = || Err(io::Error::from(io::ErrorKind::ConnectionRefused));
    let client = Client::builder()
        .bootstrap("127.0.0.1:1")
        .seed(7)
        .connector(Arc::new(move |_| async move { refused() }.boxed()))
        .build()
        .unwrap();
    App::new(GatewayConfig::default(), client, Vec::new()).unwrap()
}

async fn get(app: &Arc<App>, path: &str, headers: &[(&str, &str)]) -> Response {
    let request =
        headers.iter().fold(Request::get(path), |request, (name, value)| request.header(*name, *value));
    routes(app.clone()).oneshot(request.body(Body::empty()).unwrap()).await.unwrap()
}

/// Messages as a browser has them.
struct Stream {
    body: Body,
    text: String,
}

#[derive(Debug)]
struct Message {
    id: String,
    event: String,
    data: Value,
}

impl Stream {
    async fn open(app: &Arc<App>, last_id: Option<&str>) -> Stream {
        let headers: Vec<_> = last_id.map(|id| ("last-event-id", id)).into_iter().collect();
        let response = get(app, "/v1/live", &headers).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Stream { body: response.into_body(), text: String::new() }
    }

    async fn next(&mut self) -> Option<Message> {
        loop {
            if let Some((message, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    message.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_owned()
                };
                let (id, event, data) = (field("id: "), field("event: "), field("data: "));
                self.text = rest.to_owned();
                if event.is_empty() {
                    continue;
                }
                return Some(Message { id, event, data: serde_json::from_str(&data).unwrap() });
            }
            let frame = self.body.frame().await?.unwrap().into_data().unwrap();
            self.text.push_str(std::str::from_utf8(&frame).unwrap());
        }
    }
}

fn number(id: &str) -> u64 {
    id.split_once('-').unwrap().1.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_viewer_gets_a_snapshot_and_then_one_tick_a_second() {
    let app = app();
    let mut stream = Stream::open(&app, None).await;
    let first = stream.next().await.unwrap();
    assert_eq!(first.event, "snapshot");
    assert_eq!(first.data["cluster"]["reachable"], false, "and says that nobody answers");
    let began = Instant::now();
    for n in 1..=5 {
        let message = stream.next().await.unwrap();
        assert_eq!((message.event.as_str(), number(&message.id)), ("tick", number(&first.id) + n));
    }
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(4) && took <= Duration::from_secs(6), "{took:?} of simulated time");
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_gets_the_messages_in_between() {
    let app = app();
    let mut stream = Stream::open(&app, None).await;
    stream.next().await.unwrap();
    let last = stream.next().await.unwrap();
    drop(stream);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut stream = Stream::open(&app, Some(&last.id)).await;
    for n in 1..=4 {
        let message = stream.next().await.unwrap();
        assert_eq!((message.event.as_str(), number(&message.id)), ("tick", number(&last.id) + n));
    }
    let mut other = Stream::open(&app, Some("0000000000000001-1")).await;
    assert_eq!(other.next().await.unwrap().event, "snapshot", "another run's place is none");
}

#[tokio::test(start_paused = true)]
async fn the_collector_runs_while_someone_looks_and_a_while_longer() {
    let app = app();
    let runs = || app.live.shared.lock().run.is_some();
    assert!(!runs(), "nobody has looked");
    let mut stream = Stream::open(&app, None).await;
    let first = stream.next().await.unwrap();
    let second = Stream::open(&app, None).await;
    drop(stream);
    tokio::time::sleep(3 * LINGER).await;
    assert!(runs(), "there is another viewer");
    drop(second);
    tokio::time::sleep(LINGER / 2).await;
    assert!(runs());
    tokio::time::sleep(LINGER).await;
    assert!(!runs(), "and its memory is gone");
    let mut stream = Stream::open(&app, Some(&first.id)).await;
    let again = stream.next().await.unwrap();
    assert_eq!(again.event, "snapshot");
    assert_ne!(again.id.split_once('-').unwrap().0, first.id.split_once('-').unwrap().0, "a run of its own");
}

#[tokio::test(start_paused = true)]
async fn a_viewer_that_does_not_read_holds_up_nobody_and_gets_a_snapshot_later() {
    let app = app();
    let mut idle = Stream::open(&app, None).await;
    let first = idle.next().await.unwrap();
    let mut busy = Stream::open(&app, None).await;
    for _ in 0..500 {
        busy.next().await.unwrap();
    }
    let late = idle.next().await.unwrap();
    assert_eq!(late.event, "snapshot", "what it missed is no longer there");
    assert!(number(&late.id) > number(&first.id) + 490);
    assert_eq!(late.data["history"].as_array().unwrap().len(), 300);
}

#[tokio::test(start_paused = true)]
async fn viewers_are_bounded_and_streams_end_with_the_gateway() {
    let app = app();
    let mut streams = Vec::new();
    for _ in 0..MAX_VIEWERS {
        streams.push(Stream::open(&app, None).await);
    }
    let refused = get(&app, "/v1/live", &[]).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(refused.headers().contains_key("retry-after"));
    streams.pop();
    streams.push(Stream::open(&app, None).await);
    app.live.stop();
    for stream in &mut streams {
        while stream.next().await.is_some() {}
    }
    drop(streams);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(app.live.shared.lock().run.is_none());
}

#[tokio::test(start_paused = true)]
async fn the_pages_of_the_picture_answer_also_when_the_cluster_does_not() {
    let app = app();
    for path in
        ["/v1/cluster/topics", "/v1/cluster/partitions?state=leaderless&size=1000", "/v1/cluster/groups"]
    {
        let response = get(&app, path, &[]).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
    }
    for path in
        ["/v1/cluster/topics?size=0", "/v1/cluster/partitions?size=1001", "/v1/cluster/partitions?state=x"]
    {
        assert_eq!(get(&app, path, &[]).await.status(), StatusCode::BAD_REQUEST, "{path}");
    }
    assert!(app.live.shared.lock().run.is_some(), "a question is a look");
}

#[tokio::test]
async fn the_dashboards_files_carry_a_policy_a_tag_and_are_compressed() {
    let app = app();
    let page = get(&app, "/", &[]).await;
    assert_eq!(page.status(), StatusCode::OK);
    let headers = page.headers().clone();
    assert_eq!(headers["content-type"], "text/html; charset=utf-8");
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let html = String::from_utf8(page.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    assert!(!html.contains("http://") && !html.contains("https://"), "nothing from anywhere else: {html}");
    assert!(!html.contains("<style") && !html.contains("<script>"), "nothing inline: {html}");

    let tag = headers["etag"].to_str().unwrap();
    let again = get(&app, "/", &[("if-none-match", tag)]).await;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    let compressed = get(&app, "/", &[("accept-encoding", "gzip, br")]).await;
    assert_ne!(compressed.headers()["etag"], tag);

    let script = html.split('"').find(|part| part.ends_with(".js")).expect("a script");
    let plain = get(&app, script, &[]).await;
    assert_eq!(plain.status(), StatusCode::OK);
    assert!(plain.headers()["cache-control"].to_str().unwrap().contains("immutable"));
    let plain = plain.into_body().collect().await.unwrap().to_bytes();
    let response = get(&app, script, &[("accept-encoding", "gzip")]).await;
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let compressed = response.into_body().collect().await.unwrap().to_bytes();
    assert!(compressed.len() < plain.len() / 2);
    assert_eq!(get(&app, "/assets/..%2Findex.html", &[]).await.status(), StatusCode::NOT_FOUND);
}
