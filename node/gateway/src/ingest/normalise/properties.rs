//! Laws of normalisation, over generated events.

use super::*;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::json;

const ARRIVAL: i64 = 1_717_200_000_000;

fn rules() -> Rules {
    Rules::compile(RulesConfig::default()).unwrap()
}

fn name() -> impl Strategy<Value = String> {
    // Letters of several scripts, quotes, backslashes, spaces inside.
    "[a-zA-Zé漢\"\\\\_-]([a-zA-Z0-9 é漢\"\\\\_/-]{0,12}[a-z0-9])?"
}

/// The same number in several spellings.
fn amount() -> impl Strategy<Value = Vec<String>> {
    (-1_000_000_000_000i64..1_000_000_000_000, 0u32..7).prop_map(|(digits, scale)| {
        let plain = {
            let sign = if digits < 0 { "-" } else { "" };
            let all = format!("{:0>width$}", digits.unsigned_abs(), width = scale as usize + 1);
            let (whole, fraction) = all.split_at(all.len() - scale as usize);
            if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
        };
        let text = |number: &str| format!("\"{number}\"");
        let zeros = if scale == 0 { format!("{plain}.000") } else { format!("{plain}000") };
        let exponent = format!("{digits}e-{scale}");
        vec![
            plain.clone(),
            text(&plain),
            zeros.clone(),
            text(&zeros),
            exponent.clone(),
            text(&format!(" {exponent} ")),
        ]
    })
}

/// The same moment in several spellings.
fn time() -> impl Strategy<Value = Vec<String>> {
    // Whole seconds from 1980 to 2100.
    (315_532_800i64..4_102_444_800).prop_map(|seconds| {
        let iso = format_time(seconds * 1000);
        let local = &iso[..19];
        vec![
            seconds.to_string(),
            format!("\"{seconds}\""),
            (seconds * 1000).to_string(),
            format!("\"{iso}\""),
            format!("\"{local}\""),
            format!("\"{}\"", local.replace('-', "/").replace('T', " ")),
        ]
    })
}

/// One event in two spellings: other names, numbers, times, order, and nesting.
fn two_spellings() -> impl Strategy<Value = (String, String)> {
    let one = |names: Vec<String>| select(names);
    let config = RulesConfig::default();
    (name(), name(), amount(), time()).prop_flat_map(move |(client, metric, amounts, times)| {
        let config = config.clone();
        let spelling = move || {
            (
                one(config.client_fields.clone()),
                one(config.metric_fields.clone()),
                (one(config.amount_fields.clone()), select(amounts.clone())),
                (one(config.time_fields.clone()), select(times.clone())),
                Just(vec![0usize, 1, 2, 3]).prop_shuffle(),
                subsequence(vec![0usize, 1, 2, 3], 0..=4),
            )
                .prop_map({
                    let (client, metric) = (client.clone(), metric.clone());
                    move |(
                        client_field,
                        metric_field,
                        (amount_field, amount),
                        (time_field, time),
                        order,
                        nested,
                    )| {
                        let fields = [
                            format!("{}:{}", json!(client_field), json!(client)),
                            format!("{}: {}", json!(metric_field), json!(metric)),
                            format!("{}:{amount}", json!(amount_field)),
                            format!("{} :{time}", json!(time_field)),
                        ];
                        let of = |inside: bool| {
                            let chosen = order.iter().filter(|at| nested.contains(at) == inside);
                            chosen.map(|at| fields[*at].clone()).collect::<Vec<_>>()
                        };
                        let mut flat = of(false);
                        if !nested.is_empty() {
                            flat.insert(flat.len() / 2, format!("\"payload\":{{{}}}", of(true).join(",")));
                        }
                        format!("{{ {} }}", flat.join(", "))
                    }
                })
        };
        (spelling.clone()(), spelling())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn names_order_nesting_and_spelling_do_not_change_the_identity((one, other) in two_spellings()) {
        let one_event = rules().normalise(&one, ARRIVAL).unwrap();
        let other_event = rules().normalise(&other, ARRIVAL + 1).unwrap();
        prop_assert_eq!(one_event.id(), other_event.id(), "{} and {}", one, other);
    }

    #[test]
    fn a_canonical_form_normalises_to_itself((text, _) in two_spellings()) {
        let event = rules().normalise(&text, ARRIVAL).unwrap();
        let again = rules().normalise(&event.canonical(), 0).unwrap();
        prop_assert_eq!(&again, &event);
        prop_assert_eq!(again.canonical(), event.canonical());
    }

    #[test]
    fn another_amount_client_metric_or_time_is_another_event((text, _) in two_spellings(), which in 0..4) {
        let event = rules().normalise(&text, ARRIVAL).unwrap();
        let mut other = event.clone();
        match which {
            0 => other.client.push('x'),
            1 => other.metric.push('x'),
            2 => other.amount.add(&Amount::from_event("0.000001").unwrap()),
            _ => other.time_ms += 1,
        }
        prop_assert_ne!(event.id(), other.id());
    }

    #[test]
    fn strangers_text_is_normalised_or_refused_and_never_worse(text in "\\PC{0,80}") {
        let _ = rules().normalise(&text, ARRIVAL);
        let _ = rules().normalise(&format!("{{\"client\":\"c\",\"amount\":1,\"ts\":{}}}", json!(text)), ARRIVAL);
        let _ = rules().normalise(&format!("{{\"client\":\"c\",\"amount\":{}}}", json!(text)), ARRIVAL);
        let _ = parse_bound(&text);
    }
}
