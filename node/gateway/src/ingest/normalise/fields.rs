//! The fields of one JSON object, their values as they were written: numbers keep their digits.

use super::{Reason, Rejection, excerpt};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;

/// Names and values, by name.
#[derive(Debug, Default)]
pub(super) struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// A value, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Null,
    Number(&'a str),
    Text(Cow<'a, str>),
    /// `true` and `false`, arrays and objects: what it is, for a message.
    Other(&'static str),
}

impl<'a> Fields<'a> {
    /// # Errors
    /// If the text is not one JSON object, or names a field twice.
    pub(super) fn parse(text: &'a str) -> Result<Self, Rejection> {
        let what = || {
            Rejection::new(Reason::NotAnObject, format!("an event is a JSON object, not {}", excerpt(text)))
        };
        if !text.trim_start().starts_with('{') {
            return Err(what());
        }
        let mut fields: Fields<'a> = serde_json::from_str(text).map_err(|error| {
            Rejection::new(Reason::NotAnObject, format!("the event is not well-formed JSON: {error}"))
        })?;
        fields.0.sort_by(|a, b| a.0.cmp(&b.0));
        match fields.0.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(Rejection::new(
                Reason::RepeatedField,
                format!("the field {:?} occurs more than once", excerpt(&pair[0].0)),
            )),
            None => Ok(fields),
        }
    }

    /// The text of a value.
    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        let at = self.0.binary_search_by(|(n, _)| n.as_ref().cmp(name)).ok()?;
        Some(self.0[at].1.get())
    }

    pub(super) fn value(&self, name: &str) -> Option<Value<'a>> {
        self.text(name).map(Value::of)
    }
}

impl<'a> Value<'a> {
    fn of(text: &'a str) -> Self {
        match text.as_bytes().first() {
            Some(b'n') => Value::Null,
            Some(b'"') => match serde_json::from_str::<Text<'a>>(text) {
                Ok(Text(text)) => Value::Text(text),
                // Half a surrogate pair.
                Err(_) => Value::Other("text that is not Unicode"),
            },
            Some(b'{') => Value::Other("an object"),
            Some(b'[') => Value::Other("an array"),
            Some(b't' | b'f') => Value::Other("true or false"),
            _ => Value::Number(text),
        }
    }
}

/// Borrowed where nothing in it is escaped.
struct Text<'a>(Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Visit)
    }
}

impl<'de> serde::Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Fields<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Fields<'de>, M::Error> {
                let mut fields = Vec::new();
                while let Some((Text(name), value)) = map.next_entry()? {
                    fields.push((name, value));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}
