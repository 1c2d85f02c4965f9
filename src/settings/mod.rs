//! What the operator decides, read and checked once at the start.

mod storage;

use std::fmt;

use serde::Deserialize;

pub use storage::{Provider, ProvisionStrategy, Storage};

/// A text that no log line may show.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}
