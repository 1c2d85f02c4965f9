//! The rules of the types in `input/`, for `#[validate(custom(function = "text::<FileName>"))]`.

use serde_json::{Map, Value};
use validator::ValidationError;

use super::problem::FieldError;
use crate::input::{Metadata, Text, Wrong};

/// Checks a text by the rule of its type.
pub(super) fn text<T: Text>(text: &str) -> Result<(), ValidationError> {
    T::check(text).map_err(broken)
}

/// Checks a client's own JSON object.
pub(super) fn metadata(members: &Map<String, Value>) -> Result<(), ValidationError> {
    Metadata::check(members).map_err(broken)
}

fn broken(wrong: Wrong) -> ValidationError {
    ValidationError::new(wrong.code()).with_message(wrong.to_string().into())
}

/// Turns a text into its type. The rules of the request's shape have checked it before, together with all its other fields.
///
/// # Errors
/// The text breaks the rule of its type.
pub(super) fn typed<T: Text>(pointer: &str, given: Option<String>) -> Result<Option<T>, Vec<FieldError>> {
    given.map(T::parse).transpose().map_err(|wrong| vec![FieldError::of(pointer, wrong)])
}

/// # Errors
/// The field is missing.
pub(super) fn required<T>(pointer: &str, given: Option<T>) -> Result<T, Vec<FieldError>> {
    given.ok_or_else(|| vec![FieldError::new(pointer, "required", "is required")])
}

/// Turns each text of a list into its type.
///
/// # Errors
/// All elements that break the rule of their type.
pub(super) fn each<T: Text>(pointer: &str, given: Vec<String>) -> Result<Vec<T>, Vec<FieldError>> {
    let (mut all, mut wrong) = (Vec::with_capacity(given.len()), Vec::new());
    for (index, text) in given.into_iter().enumerate() {
        match T::parse(text) {
            Ok(element) => all.push(element),
            Err(reason) => wrong.push(FieldError::of(format!("{pointer}/{index}"), reason)),
        }
    }
    if wrong.is_empty() { Ok(all) } else { Err(wrong) }
}
