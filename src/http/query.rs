//! Query strings, as strict as bodies: every wrong and unknown parameter at once.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::str::FromStr;

use actix_web::HttpRequest;

use crate::error::{Error, FieldError, Result};

#[derive(Debug)]
pub(super) struct Query {
    left: BTreeMap<String, String>,
    wrong: Vec<FieldError>,
}

impl Query {
    pub(super) fn of(request: &HttpRequest) -> Self {
        let mut query = Self { left: BTreeMap::new(), wrong: Vec::new() };
        for (name, value) in url::form_urlencoded::parse(request.query_string().as_bytes()) {
            if query.left.insert(name.to_string(), value.to_string()).is_some() {
                query.refuse(&name, "duplicate", "it is given twice");
            }
        }
        query
    }

    /// 1 to `most` Unicode scalars without control characters.
    pub(super) fn text(&mut self, name: &str, most: usize) -> Option<String> {
        let value = self.left.remove(name)?;
        if value.is_empty() {
            self.refuse(name, "malformed", "it is empty");
        } else if value.chars().count() > most {
            self.refuse(name, "too-long", "it is too long");
        } else if value.chars().any(char::is_control) {
            self.refuse(name, "malformed", "it has a control character");
        }
        Some(value)
    }

    pub(super) fn one<T: FromStr>(&mut self, name: &str) -> Option<T> {
        let value = self.left.remove(name)?;
        let parsed = value.parse().ok();
        if parsed.is_none() {
            self.refuse(name, "malformed", "it is not of the right form");
        }
        parsed
    }

    /// Values separated by commas.
    pub(super) fn list<T>(&mut self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Vec<T>> {
        let value = self.left.remove(name)?;
        let parsed: Option<Vec<T>> = value.split(',').map(parse).collect();
        if parsed.is_none() {
            self.refuse(name, "malformed", "one of its values is not known");
        }
        parsed
    }

    pub(super) fn range(&mut self, name: &str, range: RangeInclusive<u64>) -> Option<u64> {
        let number = self.one::<u64>(name)?;
        if !range.contains(&number) {
            self.refuse(name, "out-of-range", &format!("it is not {} to {}", range.start(), range.end()));
        }
        Some(number)
    }

    fn refuse(&mut self, name: &str, code: &'static str, detail: &str) {
        self.wrong.push(FieldError::new(format!("?{name}"), code, detail));
    }

    /// # Errors
    /// [`Error::Invalid`] with what was wrong, and what nobody asked for.
    pub(super) fn finish(mut self) -> Result<()> {
        for name in std::mem::take(&mut self.left).into_keys() {
            self.refuse(&name, "unknown-field", "there is no such parameter");
        }
        if self.wrong.is_empty() { Ok(()) } else { Err(Error::Invalid(self.wrong)) }
    }
}
