//! Payments: what is written, and what is read back of it.
//!
//! ```text
//! key    acc-00042
//! value  {"id":"pay-5f0c9d-0000000012","account":"acc-00042","merchant":"Northwind Books","amountCents":1250,
//!         "currency":"EUR","method":"card","createdAt":"2026-01-31T12:00:00.123Z"}
//! header source: demo, type: payment.captured
//! ```
//!
//! Few accounts pay much and many little, as it is; so partitions are not all alike.

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::{Deserialize, Serialize};

/// Accounts that pay.
pub(super) const ACCOUNTS: u32 = 10_000;

/// Who is paid: name, typical amount in cents, and how many of a hundred payments.
const MERCHANTS: [(&str, u64, u32); 10] = [
    ("Corner Grocery", 2_400, 24),
    ("Metro Transit", 320, 18),
    ("Bean & Leaf", 540, 15),
    ("Fuel Stop", 5_200, 11),
    ("Northwind Books", 1_900, 8),
    ("Streamhouse", 1_299, 8),
    ("Harbour Pharmacy", 1_650, 6),
    ("Volt Electronics", 18_900, 5),
    ("Alpine Outfitters", 9_400, 3),
    ("Sky Travel", 41_000, 2),
];
const METHODS: [&str; 4] = ["card", "card", "wallet", "transfer"];

/// A payment as JSON has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Written<'a> {
    id: &'a str,
    account: &'a str,
    merchant: &'a str,
    amount_cents: u64,
    currency: &'a str,
    method: &'a str,
    created_at: &'a str,
}

/// What the groups look at. Text without escapes, as payments of the demonstration are; others are none.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Payment<'a> {
    pub(super) id: &'a str,
    pub(super) account: &'a str,
    pub(super) merchant: &'a str,
    pub(super) amount_cents: u64,
}

/// The most that a payment may be: sums of as many as there are offsets stay within their type.
const MOST_CENTS: u64 = 100_000_000;

impl Payment<'_> {
    /// `None` for what is no payment of the demonstration.
    pub(super) fn read(value: &[u8]) -> Option<Payment<'_>> {
        serde_json::from_slice(value).ok().filter(|payment: &Payment<'_>| payment.amount_cents <= MOST_CENTS)
    }

    /// The account's number, below [`ACCOUNTS`].
    pub(super) fn account_number(&self) -> Option<u32> {
        self.account.strip_prefix("acc-")?.parse().ok().filter(|number| *number < ACCOUNTS)
    }
}

/// `acc-00042`.
pub(super) fn account_name(number: u32) -> String {
    format!("acc-{number:05}")
}

/// Draws payments.
#[derive(Debug)]
pub(super) struct Payments {
    random: StdRng,
    /// Tells this run's payments from another's.
    run: u32,
    next: u64,
}

impl Payments {
    pub(super) fn new(seed: u64) -> Payments {
        let mut random = StdRng::seed_from_u64(seed);
        let run = random.random::<u32>() & 0xff_ffff;
        Payments { random, run, next: 0 }
    }

    /// Key and value of the next one; `now_ms`: since 1970.
    pub(super) fn draw(&mut self, now_ms: i64) -> (Bytes, Bytes) {
        // Squared: the first accounts pay the most.
        let account = self.random.random::<f64>().powi(2) * f64::from(ACCOUNTS);
        let account = account_name((account as u32).min(ACCOUNTS - 1));
        let (merchant, typical) = merchant(self.random.random_range(0..100));
        // From a quarter of the typical amount to eight times as much, seldom.
        let factor = 0.25 + 7.75 * self.random.random::<f64>().powi(6);
        let amount_cents = (typical as f64 * factor) as u64;
        let id = format!("pay-{:06x}-{:010}", self.run, self.next);
        self.next += 1;
        let created_at = jiff::Timestamp::from_millisecond(now_ms).unwrap_or_default();
        let value = serde_json::to_vec(&Written {
            id: &id,
            account: &account,
            merchant,
            amount_cents,
            currency: "EUR",
            method: METHODS[self.random.random_range(0..METHODS.len())],
            created_at: &format!("{created_at:.3}"),
        });
        (account.into(), value.expect("text and numbers are JSON").into())
    }
}

fn merchant(mut percent: u32) -> (&'static str, u64) {
    for (name, typical, share) in MERCHANTS {
        if percent < share {
            return (name, typical);
        }
        percent -= share;
    }
    let (name, typical, _) = MERCHANTS[0];
    (name, typical)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn what_is_drawn_can_be_read_and_is_keyed_by_its_account() {
        let mut payments = Payments::new(7);
        let mut seen: BTreeMap<String, u32> = BTreeMap::new();
        for _ in 0..20_000 {
            let (key, value) = payments.draw(1_769_860_800_123);
            let payment = Payment::read(&value).expect("a payment");
            assert_eq!(payment.account.as_bytes(), key);
            assert!(payment.account_number().is_some_and(|number| number < ACCOUNTS));
            assert!((80..330_000).contains(&payment.amount_cents), "{payment:?}");
            assert!(value.len() < 256, "{}", value.len());
            *seen.entry(payment.merchant.to_owned()).or_default() += 1;
        }
        let text = String::from_utf8(payments.draw(1_769_860_800_123).1.to_vec()).unwrap();
        assert!(text.contains("-0000020000\"") && text.contains("\"2026-01-31T12:00:00.123Z\""), "{text}");
        assert_eq!(seen.len(), MERCHANTS.len());
        assert!(seen["Corner Grocery"] > 4_000 && seen["Sky Travel"] < 800, "{seen:?}");
        assert_eq!(MERCHANTS.map(|(_, _, share)| share).iter().sum::<u32>(), 100);
    }

    #[test]
    fn one_seed_draws_one_stream_and_another_seed_another() {
        let draw = |seed| Payments::new(seed).draw(0);
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn what_is_no_payment_is_none() {
        let amount = |amount: &str| {
            format!(r#"{{"id":"p","account":"acc-00001","merchant":"m","amountCents":{amount},"more":[]}}"#)
        };
        assert_eq!(Payment::read(amount("7").as_bytes()).map(|p| p.account_number()), Some(Some(1)));
        for text in [amount("-1"), amount("100000001"), amount("1.5"), "{}".into(), "[".into(), String::new()]
        {
            assert_eq!(Payment::read(text.as_bytes()), None, "{text}");
        }
        for account in ["acc-10000", "acc-", "42", "acc--1"] {
            let payment = Payment { id: "p", account, merchant: "m", amount_cents: 1 };
            assert_eq!(payment.account_number(), None, "{account}");
        }
    }
}
