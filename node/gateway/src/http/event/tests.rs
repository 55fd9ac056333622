use super::*;
use proptest::prelude::*;

fn topic() -> Arc<str> {
    "t".into()
}

fn records(body: &str) -> Result<Vec<Record>, String> {
    let body = Bytes::copy_from_slice(body.as_bytes());
    let events = match parse(&body, false)? {
        Posted::One(event) => vec![event],
        Posted::Batch(events) => events,
    };
    events.into_iter().map(|event| event.record(&topic(), &body)).collect()
}

/// A record as it is read.
fn consumed(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&str, Option<&[u8]>)]) -> ConsumerRecord {
    let bytes = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
    ConsumerRecord {
        topic: topic(),
        partition: 0,
        offset: 7,
        timestamp_ms: 5,
        leader_epoch: 0,
        key: key.map(bytes),
        value: value.map(bytes),
        headers: headers
            .iter()
            .map(|(name, value)| Header::new(bytes(name.as_bytes()), value.map(bytes)))
            .collect(),
    }
}

/// The record that has to be sent to read this one.
fn sent(read: &ConsumerRecord) -> Record {
    let mut record = Record::to(topic()).timestamp_ms(read.timestamp_ms);
    if let Some(key) = &read.key {
        record = record.key(key.clone());
    }
    if let Some(value) = &read.value {
        record = record.value(value.clone());
    }
    read.headers.iter().cloned().fold(record, Record::with_header)
}

fn shown(record: &ConsumerRecord) -> String {
    serde_json::to_string(&Shown { record, place: false }).unwrap()
}

/// The event that is shown, without its offset, gives the same record.
fn again(read: &ConsumerRecord) {
    let event = shown(read).replacen(r#""offset":7,"#, "", 1);
    let records = records(&event).unwrap_or_else(|why| panic!("{event}: {why}"));
    assert_eq!(records, [sent(read)], "{event}");
}

#[test]
fn a_value_is_kept_and_shown_as_it_was_written() {
    for value in [
        r#"{"b":1, "a":[1.50,12345678901234567890123]}"#,
        r#""text""#,
        r#""\u00e9\n""#,
        "17",
        "-0.0",
        "true",
        "[]",
        "null",
    ] {
        let read = consumed(Some(b"k"), Some(value.as_bytes()).filter(|value| *value != b"null"), &[]);
        let posted = records(&format!(r#"{{"key":"k","timestamp":5,"value": {value} }}"#)).unwrap();
        assert_eq!(posted, [sent(&read)]);
        let expected = format!(r#"{{"offset":7,"timestamp":5,"key":"k","value":{value},"headers":{{}}}}"#);
        assert_eq!(shown(&read), expected);
    }
}

#[test]
fn text_and_bytes_are_shown_as_they_are_sent() {
    for (key, value, expected) in [
        (Some(&b"k"[..]), &b"plain"[..], r#""key":"k","value":"plain","valueEncoding":"text""#),
        (
            Some(b"\xff"),
            b"\xff\0",
            r#""key":"/w==","keyEncoding":"base64","value":"/wA=","valueEncoding":"base64""#,
        ),
        (None, b"", r#""key":null,"value":"","valueEncoding":"text""#),
        (None, b"null", r#""key":null,"value":"null","valueEncoding":"text""#),
        (None, b" 1", r#""key":null,"value":" 1","valueEncoding":"text""#),
    ] {
        let read = consumed(key, Some(value), &[]);
        assert_eq!(shown(&read), format!(r#"{{"offset":7,"timestamp":5,{expected},"headers":{{}}}}"#));
        again(&read);
    }
    // JSON that somebody sent as text is the same bytes.
    let text = records(r#"{"value":"17","valueEncoding":"text"}"#).unwrap();
    assert_eq!(text, records(r#"{"value":17}"#).unwrap());
}

#[test]
fn headers_repeat_are_absent_and_hold_bytes() {
    let read = consumed(
        None,
        Some(b"1"),
        &[("a", Some(b"1")), ("b", Some(b"x")), ("b", None), ("b", Some(b"\xff")), ("c", None)],
    );
    let text = shown(&read);
    assert!(text.ends_with(r#""headers":{"a":"1","b":["x",null,{"base64":"/w=="}],"c":null}}"#), "{text}");
    again(&read);
}

#[test]
fn keys_that_are_numbers_or_booleans_are_their_text() {
    for (key, text) in [("17", "17"), ("true", "true"), ("\"x\\ty\"", "x\ty")] {
        let posted = records(&format!(r#"{{"key":{key},"value":1}}"#)).unwrap();
        assert_eq!(posted, [Record::to("t").key(text).value("1")]);
    }
}

#[test]
fn one_an_array_and_lines_are_told_apart() {
    let single = |body: &str, lines| matches!(parse(body.as_bytes(), lines).unwrap(), Posted::One(_));
    assert!(single(r#" {"value":1} "#, false));
    assert!(!single(r#"{"value":1}"#, true), "the content type says so");
    assert!(!single(r#"[{"value":1}]"#, false));
    for body in
        ["{\"value\":1}\n{\"value\":2}\n", "{\"value\":1}{\"value\":2}", "[{\"value\":1},{\"value\":2}]"]
    {
        assert_eq!(records(body).unwrap().len(), 2, "{body}");
    }
    assert_eq!(records("[]").unwrap().len(), 0);
}

#[test]
fn what_is_wrong_is_said() {
    for (body, says) in [
        ("", "empty"),
        ("{}", "value"),
        ("{\"value\":1", "EOF"),
        ("{\"value\":1}x", "expected"),
        ("[{\"value\":1}]x", "trailing"),
        ("[1]", "struct Event"),
        (r#"{"vlaue":1}"#, "vlaue"),
        (r#"{"value":1,"partition":-1}"#, "counted from 0"),
        (r#"{"value":1,"timestamp":-1}"#, "milliseconds"),
        (r#"{"value":1,"key":{}}"#, "string"),
        (r#"{"value":1,"valueEncoding":"text"}"#, "string"),
        (r#"{"value":"?","valueEncoding":"base64"}"#, "base64"),
        (r#"{"value":1,"headers":{"a":1}}"#, "header"),
    ] {
        let why = records(body).expect_err(body);
        assert!(why.contains(says), "{body}: {why}");
    }
}

#[test]
fn a_request_brings_only_so_many_events() {
    let many = |n: usize| vec![r#"{"value":1}"#; n];
    assert_eq!(records(&many(MAX_EVENTS).join("\n")).unwrap().len(), MAX_EVENTS);
    assert!(records(&many(MAX_EVENTS + 1).join("\n")).unwrap_err().contains("split"));
    assert!(records(&format!("[{}]", many(MAX_EVENTS + 1).join(","))).unwrap_err().contains("split"));
}

proptest! {
    #[test]
    fn whatever_is_in_the_log_can_be_sent_again_as_it_was_read(
        key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..12)),
        value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..24)),
        headers in proptest::collection::vec(("[a-c]", proptest::option::of(proptest::collection::vec(any::<u8>(), 0..4))), 0..4),
    ) {
        // The order between names is not kept.
        let mut headers = headers;
        headers.sort_by(|a, b| a.0.cmp(&b.0));
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        again(&consumed(key.as_deref(), value.as_deref(), &headers));
    }
}
