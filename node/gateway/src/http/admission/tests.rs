use super::*;
use axum::http::Request;

fn parts(headers: &[(&str, &str)]) -> Parts {
    let request =
        headers.iter().fold(Request::builder(), |request, (name, value)| request.header(*name, *value));
    let (mut parts, ()) = request.body(()).unwrap().into_parts();
    parts.extensions.insert(Peer(([192, 0, 2, 1], 4711).into()));
    parts
}

fn config() -> GatewayConfig {
    GatewayConfig {
        max_inflight_requests: 2,
        max_inflight_reads: 1,
        max_inflight_bytes: 100,
        max_body_bytes: 60,
        ..GatewayConfig::default()
    }
}

fn refused(admitted: Result<Permit, Problem>) -> String {
    let problem = admitted.expect_err("there is no room");
    assert_eq!(problem.status(), StatusCode::TOO_MANY_REQUESTS);
    let document = problem.to_value();
    assert_eq!(document["may_have_happened"], false);
    assert!(document["retry_after_ms"].as_u64().is_some());
    document["type"].as_str().unwrap().to_owned()
}

#[test]
fn slots_and_bytes_are_bounded_and_given_back() {
    let admission = Admission::new(&config());
    let first = admission.admit(&parts(&[]), Class::Write, 60).unwrap();
    assert_eq!(refused(admission.admit(&parts(&[]), Class::Write, 41)), "/docs#too-many-bytes-in-flight");
    let second = admission.admit(&parts(&[]), Class::Write, 40).unwrap();
    assert_eq!(refused(admission.admit(&parts(&[]), Class::Write, 0)), "/docs#too-many-in-flight");
    let _read = admission.admit(&parts(&[]), Class::Read, 0).expect("reads have places of their own");
    assert_eq!(refused(admission.admit(&parts(&[]), Class::Read, 0)), "/docs#too-many-in-flight");
    drop((first, second));
    admission.admit(&parts(&[]), Class::Write, 100).unwrap();
    assert_eq!(admission.refused(), 3);
    let reasons = [("rate-limited", 0), ("too-many-in-flight", 2), ("too-many-bytes-in-flight", 1)];
    assert_eq!(admission.refusals(), reasons);
}

#[test]
fn a_body_without_a_length_counts_as_the_largest_and_one_too_large_is_refused_unread() {
    let admission = Admission::new(&config());
    assert_eq!(admission.body_bytes(Some(7)).unwrap(), 7);
    assert_eq!(admission.body_bytes(None).unwrap(), 60);
    assert_eq!(admission.body_bytes(Some(61)).unwrap_err().status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(admission.body_bytes(Some(u64::MAX)).unwrap_err().status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[test]
fn a_client_is_its_address_or_what_the_configured_header_says() {
    let limited = GatewayConfig {
        client_rate: 1,
        client_burst: 1,
        client_header: Some("x-client".to_owned()),
        ..GatewayConfig::default()
    };
    let admission = Admission::new(&limited);
    let come = |headers: &[(&str, &str)]| admission.admit(&parts(headers), Class::Write, 0);
    come(&[]).unwrap();
    assert_eq!(refused(come(&[])), "/docs#rate-limited");
    come(&[("x-client", "a")]).unwrap();
    come(&[("x-client", "b")]).unwrap();
    assert_eq!(refused(come(&[("x-client", "a")])), "/docs#rate-limited");
}
