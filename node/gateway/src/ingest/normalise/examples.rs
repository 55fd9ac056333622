//! A table of events and what becomes of them; the first five are those of the project's issue.

use super::*;

/// 2024-06-01T00:00:00Z.
const ARRIVAL: i64 = 1_717_200_000_000;

fn normalise(text: &str) -> String {
    match Rules::compile(RulesConfig::default()).unwrap().normalise(text, ARRIVAL) {
        Ok(event) => {
            let Event { client, metric, amount, time_ms } = event;
            format!("{client} {metric} {amount} {}", format_time(time_ms))
        }
        Err(rejection) => rejection.reason.name().to_owned(),
    }
}

#[test]
fn events_of_many_shapes() {
    let table = [
        (
            r#"{"source":"client_A","payload":{"metric":"purchase","amount":"1200","timestamp":"2024/01/01"}}"#,
            "client_A purchase 1200 2024-01-01T00:00:00.000Z",
        ),
        (
            r#"{"client_id":"client_B","event_type":"click","value":500,"date":"2024-01-15T10:30:00Z"}"#,
            "client_B click 500 2024-01-15T10:30:00.000Z",
        ),
        (
            r#"{"origin":"client_C","name":"refund","price":"12.50","ts":1705314600}"#,
            "client_C refund 12.5 2024-01-15T10:30:00.000Z",
        ),
        (r#"{"clientId":"client_C","count":"many"}"#, "invalid_amount"),
        (
            r#"{"client":"client_D","type":"view","quantity":3,"createdAt":1705314600123}"#,
            "client_D view 3 2024-01-15T10:30:00.123Z",
        ),
        (
            r#"{"source":"client_A","payload":{"metric":"purchase","amount":7}}"#,
            "client_A purchase 7 2024-06-01T00:00:00.000Z",
        ),
        // What is missing.
        (r#"{"client":"a","amount":1,"ts":0}"#, "a unknown 1 1970-01-01T00:00:00.000Z"),
        (r#"{"metric":"m","amount":1}"#, "missing_client"),
        (r#"{"client":"  ","amount":1}"#, "missing_client"),
        (r#"{"client":null,"origin":"o","amount":1,"ts":0}"#, "o unknown 1 1970-01-01T00:00:00.000Z"),
        (r#"{"client":"a"}"#, "missing_amount"),
        (r#"{"client":"a","amount":null,"total":" 3 ","ts":0}"#, "a unknown 3 1970-01-01T00:00:00.000Z"),
        // The nested object says more than its envelope, and a list's first name more than its last.
        (
            r#"{"type":"envelope","source":"gate","payload":{"name":"n","client":"c","price":2,"ts":0}}"#,
            "c n 2 1970-01-01T00:00:00.000Z",
        ),
        (
            r#"{"price":2,"amount":1,"origin":"o","source":"s","ts":0}"#,
            "s unknown 1 1970-01-01T00:00:00.000Z",
        ),
        (r#"{"client":"a","amount":1,"ts":0,"payload":"text"}"#, "a unknown 1 1970-01-01T00:00:00.000Z"),
        // Numbers.
        (r#"{"client":42,"amount":1,"ts":0}"#, "42 unknown 1 1970-01-01T00:00:00.000Z"),
        (
            r#"{"client":"a","amount":123456789012345678.123456789012345678,"ts":0}"#,
            "a unknown 123456789012345678.123456789012345678 1970-01-01T00:00:00.000Z",
        ),
        (r#"{"client":"a","amount":-1.5e2,"ts":"1705314600"}"#, "a unknown -150 2024-01-15T10:30:00.000Z"),
        (r#"{"client":"a","amount":1e400}"#, "invalid_amount"),
        (r#"{"client":"a","amount":true}"#, "invalid_amount"),
        (r#"{"client":"a","amount":{"value":1}}"#, "invalid_amount"),
        (r#"{"client":"a","amount":"1,200"}"#, "invalid_amount"),
        // Values that are there and cannot be read are not passed over.
        (r#"{"client":"a","amount":"?","value":1}"#, "invalid_amount"),
        (r#"{"client":"a","amount":1,"timestamp":"soon","ts":0}"#, "invalid_time"),
        (r#"{"client":"a","amount":1,"timestamp":"01/02/2024"}"#, "invalid_time"),
        (r#"{"client":["a"],"amount":1}"#, "invalid_client"),
        (r#"{"client":"a\u0000","amount":1}"#, "invalid_client"),
        (r#"{"client":"\ud800","amount":1}"#, "invalid_client"),
        (r#"{"client":"a","metric":{},"amount":1}"#, "invalid_metric"),
        // What is no event.
        ("[]", "not_an_object"),
        ("7", "not_an_object"),
        ("", "not_an_object"),
        (r#"{"client":"a""#, "not_an_object"),
        (r#"{"client":"a","client":"b","amount":1}"#, "repeated_field"),
    ];
    for (text, expected) in table {
        assert_eq!(normalise(text), expected, "{text}");
    }
}

#[test]
fn a_rejection_names_field_and_value_and_the_client() {
    let rules = Rules::compile(RulesConfig::default()).unwrap();
    let rejection = rules.normalise(r#"{"clientId":"client_C","count":"many"}"#, ARRIVAL).unwrap_err();
    assert_eq!(rejection.client.as_deref(), Some("client_C"));
    assert_eq!(
        rejection.to_string(),
        r#"invalid_amount: count = "many" is not a number (expected digits such as 1200, -3 or 12.50)"#
    );
}

#[test]
fn an_event_is_bounded_in_its_length_and_its_names_too() {
    let rules = Rules::compile(RulesConfig { max_event_bytes: 64, ..RulesConfig::default() }).unwrap();
    let long = format!(r#"{{"client":"{}","amount":1}}"#, "a".repeat(64));
    assert_eq!(rules.normalise(&long, ARRIVAL).unwrap_err().reason, Reason::TooLarge);
    let rules = Rules::compile(RulesConfig { max_name_bytes: 16, ..RulesConfig::default() }).unwrap();
    assert_eq!(rules.normalise(&long, ARRIVAL).unwrap_err().reason, Reason::InvalidClient);
}

#[test]
fn the_identity_is_the_digest_of_the_canonical_form() {
    let rules = Rules::compile(RulesConfig::default()).unwrap();
    let event = rules
        .normalise(r#"{"origin":"client_C","name":"refund","price":"12.50","ts":1705314600}"#, 0)
        .unwrap();
    assert_eq!(
        event.canonical(),
        r#"{"amount":"12.5","client":"client_C","metric":"refund","timestamp":"2024-01-15T10:30:00.000Z"}"#
    );
    // printf '%s' '{"amount":"12.5",…}' | sha256sum
    assert_eq!(event.id().to_string(), "1f4e644c97033e2894a3afbb5de07ec00b2de9ae276f47beb590269b5de3ef13");
    assert_eq!(EventId::parse(&event.id().to_string()), Some(event.id()));
    assert_eq!(EventId::parse("12"), None);
}

#[test]
fn a_rule_set_that_cannot_work_is_refused_when_it_is_compiled() {
    let refused = |change: fn(&mut RulesConfig)| {
        let mut config = RulesConfig::default();
        change(&mut config);
        Rules::compile(config).unwrap_err().to_string()
    };
    assert!(
        refused(|c| c.client_fields = vec!["who".into()]).contains("client_fields must contain \"client\"")
    );
    assert!(
        refused(|c| c.default_amount = Some("some".into())).contains("default_amount: it is not a number")
    );
    assert!(refused(|c| c.default_client = Some(" ".into())).contains("default_client: it is empty"));
    assert!(refused(|c| c.time_formats = vec!["%Q!%".into()]).contains("time_formats"));
    assert!(refused(|c| c.max_name_bytes = 0).contains("max_name_bytes must be from 16"));
}

#[test]
fn rules_are_read_from_toml_and_misspelt_keys_are_named() {
    let config: RulesConfig = toml::from_str(
        "client_fields = [\"who\", \"client\"]\ndefault_amount = \"1\"\ndefault_time_is_arrival = false\n\
         time_formats = [\"%d.%m.%Y\"]",
    )
    .unwrap();
    let rules = Rules::compile(config).unwrap();
    let event = rules.normalise(r#"{"who":"w","ts":"15.01.2024"}"#, ARRIVAL).unwrap();
    assert_eq!((event.client.as_str(), event.amount.to_string().as_str()), ("w", "1"));
    assert_eq!(format_time(event.time_ms), "2024-01-15T00:00:00.000Z");
    assert_eq!(rules.normalise(r#"{"who":"w"}"#, ARRIVAL).unwrap_err().reason, Reason::MissingTime);
    let error = toml::from_str::<RulesConfig>("client_field = []").unwrap_err().to_string();
    assert!(error.contains("client_field"), "{error}");
}
