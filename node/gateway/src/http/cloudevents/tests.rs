use super::*;

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
}

fn made(pairs: &[(&'static str, &str)], body: &str) -> Result<Vec<Record>, String> {
    let headers = headers(pairs);
    let mode = mode(&headers)?.expect("it carries CloudEvents");
    records(mode, &headers, &Bytes::copy_from_slice(body.as_bytes()), &"t".into())
}

const EVENT: &str = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"n":1.50}}"#;

#[test]
fn a_structured_event_is_kept_as_it_is() {
    let records = made(&[("content-type", "application/cloudevents+json; charset=UTF-8")], EVENT).unwrap();
    let expected = Record::to("t").value(EVENT).header("content-type", "application/cloudevents+json");
    assert_eq!(records, [expected]);
    let keyed = EVENT.replace("\"id\"", "\"partitionkey\":\"k\",\"id\"");
    let records = made(&[("content-type", "application/cloudevents+json")], &keyed).unwrap();
    assert_eq!(records[0].clone(), Record::to("t").value(keyed).key("k").header("content-type", STRUCTURED));
}

#[test]
fn a_batch_is_one_structured_event_after_the_other() {
    let batch = [("content-type", "application/cloudevents-batch+json")];
    let other = EVENT.replace("\"1\"", "\"2\"");
    let records = made(&batch, &format!("[{EVENT}, {other}]")).unwrap();
    let one = |value: &str| Record::to("t").value(value.to_owned()).header("content-type", STRUCTURED);
    assert_eq!(records, [one(EVENT), one(&other)]);
    assert_eq!(made(&batch, "[]").unwrap(), []);
    assert!(made(&batch, &format!("[{EVENT},{{}}]")).unwrap_err().starts_with("event 1"));
}

#[test]
fn a_binary_event_has_its_attributes_in_headers_and_its_data_untouched() {
    let sent = [
        ("ce-specversion", "1.0"),
        ("ce-id", "a%20b%C3%A9"),
        ("ce-source", "/s"),
        ("ce-type", "\"quoted \\\"t\\\"\""),
        ("ce-partitionkey", "k"),
        ("content-type", "text/plain"),
        ("accept", "*/*"),
    ];
    let records = made(&sent, "not json").unwrap();
    let expected = Record::to("t")
        .value("not json")
        .key("k")
        .header("ce_specversion", "1.0")
        .header("ce_id", "a bé")
        .header("ce_source", "/s")
        .header("ce_type", "quoted \"t\"")
        .header("ce_partitionkey", "k")
        .header("content-type", "text/plain");
    assert_eq!(records, [expected]);
}

#[test]
fn what_no_cloud_event_may_lack_is_asked_for() {
    let json = [("content-type", "application/cloudevents+json")];
    for (event, says) in [
        (EVENT.replace("\"1.0\"", "\"0.3\""), "only 1.0"),
        (EVENT.replace("\"/s\"", "\"\""), "\"source\" is empty"),
        (EVENT.replace("\"id\"", "\"di\""), "missing field `id`"),
        ("[]".to_owned(), "object"),
        ("1".to_owned(), "object"),
    ] {
        let why = made(&json, &event).expect_err(&event);
        assert!(why.contains(says), "{event}: {why}");
    }
    let binary = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s")];
    assert_eq!(made(&binary, "").unwrap_err(), "the header ce-type is missing");
    for bad in ["%", "%f", "%zz", "%+1", "%ff"] {
        assert!(made(&[("ce-specversion", "1.0"), ("ce-type", bad)], "").is_err(), "{bad}");
    }
    assert!(mode(&headers(&[("content-type", "application/cloudevents+avro")])).is_err());
    assert_eq!(mode(&headers(&[("content-type", "application/json")])), Ok(None));
}
