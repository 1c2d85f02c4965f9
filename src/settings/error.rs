use std::fmt;

use url::Url;

/// Why the settings cannot be used: every problem, one on each line. Names keys, never the value of a secret.
#[derive(Debug)]
pub struct Error {
    complaints: Vec<String>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.complaints.join("\n"))
    }
}

impl std::error::Error for Error {}

impl From<String> for Error {
    fn from(complaint: String) -> Self {
        Self { complaints: vec![complaint] }
    }
}

/// Collects the problems, so that one start reports all of them.
#[derive(Default)]
pub(super) struct Complaints(Vec<String>);

impl Complaints {
    pub fn add(&mut self, complaint: String) {
        self.0.push(complaint);
    }

    pub fn unless(&mut self, holds: bool, complaint: impl FnOnce() -> String) {
        if !holds {
            self.add(complaint());
        }
    }

    pub fn at_least_one(&mut self, key: &str, value: u64) {
        self.unless(value >= 1, || format!("{key} is 0; it must be at least 1"));
    }

    pub fn http_url(&mut self, key: &str, value: Option<&str>) {
        let fits = |text: &str| {
            Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some())
        };
        self.unless(value.is_none_or(fits), || format!("{key} is not a URL that starts with http:// or https://"));
    }

    /// Two keys that must be set together.
    pub fn pair(&mut self, a: (&str, bool), b: (&str, bool)) {
        match (a, b) {
            ((set, true), (missing, false)) | ((missing, false), (set, true)) => {
                self.add(format!("{set} is set without {missing}"));
            }
            ((_, true), (_, true)) | ((_, false), (_, false)) => {}
        }
    }

    /// # Errors
    /// The collected problems, if there are any.
    pub fn finish(self) -> Result<(), Error> {
        if self.0.is_empty() { Ok(()) } else { Err(Error { complaints: self.0 }) }
    }
}
