//! Exact decimal amounts.
//!
//! An amount has at most [`MAX_DIGITS`] digits on either side of the point; sums have no bound (`BigDecimal`), so
//! adding never rounds and never overflows. Only a mean is rounded, and says so.

use bigdecimal::{BigDecimal, RoundingMode, Zero};
use std::fmt;
use std::str::FromStr;

/// Most digits before, and most after the point.
pub const MAX_DIGITS: i64 = 18;

/// Longest text that is looked at.
const MAX_TEXT: usize = 64;

/// Digits after the point of a mean.
const MEAN_DIGITS: i64 = 12;

/// An exact decimal number, without needless zeros.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(BigDecimal);

impl Amount {
    /// Zero.
    pub fn zero() -> Self {
        Amount(BigDecimal::zero())
    }

    /// Reads a number as an event may carry it: a sign, digits, a point, an exponent.
    ///
    /// # Errors
    /// A sentence without subject: what is wrong with it.
    pub fn from_event(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if !is_number(text) {
            return Err("is not a number (expected digits such as 1200, -3 or 12.50)".into());
        }
        let exponent = text.find(['e', 'E']).map_or(Ok(0), |at| text[at + 1..].parse::<i16>());
        if text.len() > MAX_TEXT || exponent.map_or(true, |e| i64::from(e).abs() > 2 * MAX_DIGITS) {
            return Err("is too long for an amount".into());
        }
        let number = BigDecimal::from_str(text).map_err(|_| "is not a number".to_owned())?.normalized();
        let (digits, scale) = (number.digits() as i64, number.fractional_digit_count());
        if !number.is_zero() && (scale > MAX_DIGITS || digits - scale > MAX_DIGITS) {
            return Err(format!(
                "has more digits than are kept ({MAX_DIGITS} before the point, {MAX_DIGITS} after it)"
            ));
        }
        Ok(Amount(number))
    }

    /// Reads what [`Display`](fmt::Display) wrote, or a sum that a database computed.
    pub fn from_stored(text: &str) -> Option<Self> {
        is_number(text).then(|| BigDecimal::from_str(text).ok()).flatten().map(|n| Amount(n.normalized()))
    }

    /// Adds exactly.
    pub fn add(&mut self, other: &Amount) {
        self.0 += &other.0;
    }

    /// The same without needless zeros, which sums may have gathered.
    pub fn normalized(&self) -> Self {
        Amount(self.0.normalized())
    }

    /// This sum shared among `count`, rounded half to even at the twelfth digit after the point; `None` of none.
    pub fn mean(&self, count: u64) -> Option<Amount> {
        if count == 0 {
            return None;
        }
        let exact = &self.0 / BigDecimal::from(count);
        Some(Amount(exact.with_scale_round(MEAN_DIGITS, RoundingMode::HalfEven).normalized()))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.normalized().to_plain_string())
    }
}

/// `[+-] digits [. digits] [e [+-] digits]`, with a digit on one side of the point at least.
fn is_number(text: &str) -> bool {
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    let whole = digits(rest);
    rest = &rest[whole..];
    let mut fraction = 0;
    if let Some(after) = rest.strip_prefix('.') {
        fraction = digits(after);
        rest = &after[fraction..];
    }
    if let Some(after) = rest.strip_prefix(['e', 'E']) {
        let after = after.strip_prefix(['+', '-']).unwrap_or(after);
        let exponent = digits(after);
        if exponent == 0 {
            return false;
        }
        rest = &after[exponent..];
    }
    whole + fraction > 0 && rest.is_empty()
}

impl Amount {
    /// The number as JSON has it, every digit.
    pub fn to_json(&self) -> Box<serde_json::value::RawValue> {
        serde_json::value::RawValue::from_string(self.to_string()).expect("digits are JSON")
    }
}

impl serde::Serialize for Amount {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_json().serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        Amount::from_event(text).map_or_else(|why| why, |amount| amount.to_string())
    }

    #[test]
    fn the_spelling_of_a_number_does_not_matter() {
        for (text, plain) in [
            ("1200", "1200"),
            (" 12.50 ", "12.5"),
            ("+1.2e3", "1200"),
            ("-0", "0"),
            ("0.000", "0"),
            ("0e30", "0"),
            (".5", "0.5"),
            ("5.", "5"),
            ("100e-2", "1"),
            ("999999999999999999.999999999999999999", "999999999999999999.999999999999999999"),
        ] {
            assert_eq!(written(text), plain, "{text}");
        }
    }

    #[test]
    fn what_is_no_number_or_too_long_is_refused() {
        for text in ["", "many", "1,200", "1_000", "0x10", "NaN", "inf", "1e", "e5", "--1", "1 2", "$5", "."]
        {
            assert!(written(text).contains("not a number"), "{text}: {}", written(text));
        }
        for text in ["1000000000000000000", "0.0000000000000000001", "1e18", "1e-19"] {
            assert!(written(text).contains("more digits"), "{text}: {}", written(text));
        }
        for text in ["1e999999999", "1e-99999", &"9".repeat(65)] {
            assert!(written(text).contains("too long"), "{text}: {}", written(text));
        }
    }

    #[test]
    fn sums_are_exact_where_floats_are_not() {
        let mut sum = Amount::zero();
        for _ in 0..10 {
            sum.add(&Amount::from_event("0.1").unwrap());
        }
        assert_eq!(sum.to_string(), "1");
        sum.add(&Amount::from_event("999999999999999999").unwrap());
        sum.add(&Amount::from_event("0.000000000000000001").unwrap());
        assert_eq!(sum.to_string(), "1000000000000000000.000000000000000001");
    }

    #[test]
    fn a_mean_is_rounded_half_to_even_at_the_twelfth_digit() {
        let mean = |sum: &str, count| Amount::from_stored(sum).unwrap().mean(count).unwrap().to_string();
        assert_eq!(mean("10", 4), "2.5");
        assert_eq!(mean("10", 3), "3.333333333333");
        assert_eq!(mean("0.000000000001", 2), "0");
        assert_eq!(mean("0.000000000003", 2), "0.000000000002");
        assert_eq!(Amount::zero().mean(0), None);
    }
}
