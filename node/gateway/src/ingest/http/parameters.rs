//! Query parameters: known names once each, values as they should be; anything else is refused rather than passed over.

use super::super::normalise::parse_bound;
use crate::http::problem::Problem;
use axum::extract::Query;
use axum::http::Uri;
use std::collections::BTreeMap;

pub(super) struct Parameters(BTreeMap<String, String>);

impl Parameters {
    pub(super) fn parse(uri: &Uri, known: &[&str]) -> Result<Self, Problem> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| Problem::invalid(format!("the query cannot be read: {error}")))?;
        let mut values = BTreeMap::new();
        for (name, value) in pairs {
            if !known.contains(&name.as_str()) {
                let problem = Problem::invalid(format!("there is no parameter {name:?} here"));
                return Err(problem.hint(format!("known are {}", known.join(", "))));
            }
            if values.insert(name.clone(), value).is_some() {
                return Err(Problem::invalid(format!("the parameter {name} is given more than once")));
            }
        }
        // An empty value is what a form sends for a field that was left empty.
        values.retain(|_, value| !value.is_empty());
        Ok(Parameters(values))
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<String>, Problem> {
        match self.0.get(name) {
            Some(text) if text.chars().any(char::is_control) => {
                Err(Problem::invalid(format!("{name} contains a control character")))
            }
            text => Ok(text.cloned()),
        }
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.0.get(name).map(String::as_str) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => Err(Problem::invalid(format!("{name} is true or false, not {other:?}"))),
        }
    }

    pub(super) fn number(&self, name: &str, default: u32, most: u32) -> Result<u32, Problem> {
        let Some(text) = self.0.get(name) else { return Ok(default) };
        match text.parse() {
            Ok(number) if number <= most => Ok(number),
            _ => Err(Problem::invalid(format!("{name} is a number from 0 to {most}, not {text:?}"))),
        }
    }

    /// `startDate` (inclusive) and `endDate` (inclusive: the whole day, or the very millisecond) as first and first not.
    pub(super) fn range(&self) -> Result<(Option<i64>, Option<i64>), Problem> {
        let bound = |name: &str| match self.0.get(name) {
            None => Ok(None),
            Some(text) => parse_bound(text).map(Some).ok_or_else(|| {
                Problem::invalid(format!("{name} = {text:?} is not a time"))
                    .hint("write 2024-01-15, 2024-01-15T10:30:00Z, or Unix seconds or milliseconds")
            }),
        };
        let from = bound("startDate")?.map(|(first, _)| first);
        let to = bound("endDate")?.map(|(_, next)| next);
        if from.zip(to).is_some_and(|(from, to)| from >= to) {
            return Err(Problem::invalid("endDate lies before startDate"));
        }
        Ok((from, to))
    }
}
