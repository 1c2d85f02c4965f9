//! Deserializes a document into a struct, and reports every invalid field at once.
//!
//! serde stops at the first error. The deserializer here records it instead, hands over a placeholder (0, an empty text)
//! and goes on, so that one pass over the document finds all errors, however many. The rules of the struct
//! (`validator::Validate`) are then checked on the fields that were valid.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Error as _, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};
use serde_json::Value;
use validator::{Validate, ValidationError, ValidationErrors, ValidationErrorsKind};

use super::problem::FieldError;
use crate::error::FIELD_ERRORS_MAX;
use crate::input;
use crate::yielding::give_way_in_small_steps;

/// Characters of a client's own text that an answer repeats: of a key in a pointer, of a value in a detail.
const ECHOED_CHARS_MAX: usize = 128;

/// How many elements of a list are read. No list of the contract may have more than 10,000, and one more is enough for its
/// rule to see that there are too many.
const ELEMENTS_MAX: usize = 10_001;

/// A value that its own type refuses (such as a UUID) costs another pass. After this many passes, further errors are not
/// named.
const PASSES_MAX: usize = 16;

/// The form of the document.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    /// Parameters of a query string: all values are text, even numbers, and there is one level.
    Query,
}

/// How many errors the answer to a request may still name. There is one budget for each request, however many documents it
/// consists of: a batch of invalid files is answered with no more errors than one invalid file.
pub struct Budget {
    left: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: FIELD_ERRORS_MAX }
    }
}

impl Budget {
    /// Keeps as many of these errors as may be named, with a last entry that counts the others and the `unnamed` ones.
    pub(super) fn spend(&mut self, errors: &mut Vec<FieldError>, unnamed: usize) {
        let room = self.left;
        self.left = room.saturating_sub(errors.len());
        let more = errors.len().saturating_sub(room) + unnamed;
        errors.truncate(room);
        if more > 0 {
            errors.push(FieldError::of("", input::Wrong::MoreErrors { more }));
        }
    }
}

/// Reads a document. `more` is a rule that needs more than the struct; its error is reported with all others. It may see
/// placeholders.
///
/// # Errors
/// Every field that is unknown, has the wrong type, or breaks a rule of `T` or `more`, as far as the budget allows; then a
/// last entry says how many more there are.
pub(super) fn read<T: DeserializeOwned + Validate>(
    document: &Value,
    form: Form,
    budget: &mut Budget,
    more: impl FnOnce(&T) -> Option<FieldError>,
) -> Result<T, Vec<FieldError>> {
    let (mut errors, unnamed) = match read_all(document, form, budget.left, more) {
        Ok(read) => return Ok(read),
        Err(wrong) => wrong,
    };
    budget.spend(&mut errors, unnamed);
    Err(errors)
}

/// # Errors
/// At most a few more than `room` errors, and how many more were only counted.
fn read_all<T: DeserializeOwned + Validate>(
    document: &Value,
    form: Form,
    room: usize,
    more: impl FnOnce(&T) -> Option<FieldError>,
) -> Result<T, (Vec<FieldError>, usize)> {
    let mut refused = HashSet::new();
    let mut errors = Vec::new();
    for _ in 0..PASSES_MAX {
        let notes = Notes { form, room, refused, found: RefCell::default() };
        let result = T::deserialize(Reader { value: document, at: Pointer::Root, notes: &notes });
        let Notes { refused: before, found, .. } = notes;
        let found = found.into_inner();
        refused = before;
        match (result, found.refused) {
            // The value's own type refused it: leave the value out and read the document again.
            (Err(_), Some(error)) => {
                let again = refused.insert(error.pointer.clone());
                errors.push(error);
                if !again {
                    break;
                }
            }
            (result, _) => {
                errors.extend(found.errors);
                return match result {
                    Ok(read) => check(read, form, room, Wrong { errors, unnamed: found.unnamed }, more),
                    Err(_) => Err((errors, found.unnamed)),
                };
            }
        }
    }
    Err((errors, 0))
}

struct Wrong {
    errors: Vec<FieldError>,
    unnamed: usize,
}

/// Checks the rules of a struct that was read, and adds the broken ones to the errors that were found in reading.
///
/// # Errors
/// All of these errors.
fn check<T: Validate>(
    read: T,
    form: Form,
    room: usize,
    mut wrong: Wrong,
    more: impl FnOnce(&T) -> Option<FieldError>,
) -> Result<T, (Vec<FieldError>, usize)> {
    // If some errors were only counted, it is not known which fields are placeholders.
    if wrong.unnamed == 0
        && let Err(against) = read.validate()
    {
        let misfits: HashSet<String> = wrong.errors.iter().map(|error| error.pointer.clone()).collect();
        flatten(&Pointer::Root, form, &against, &misfits, room, &mut wrong);
    }
    wrong.errors.extend(more(&read));
    if wrong.errors.is_empty() && wrong.unnamed == 0 { Ok(read) } else { Err((wrong.errors, wrong.unnamed)) }
}

/// A place in the document, as a chain from the leaf to the root, so that it costs nothing until it is printed.
enum Pointer<'a> {
    Root,
    Member(&'a Pointer<'a>, &'a str),
    Element(&'a Pointer<'a>, usize),
}

impl Pointer<'_> {
    /// RFC 6901; `?name` for a query parameter.
    fn text(&self, form: Form) -> String {
        match self {
            Self::Root => String::new(),
            Self::Member(Self::Root, name) if form == Form::Query => format!("?{}", shortened(name)),
            Self::Member(parent, name) => {
                format!("{}/{}", parent.text(form), shortened(name).replace('~', "~0").replace('/', "~1"))
            }
            Self::Element(parent, index) => format!("{}/{index}", parent.text(form)),
        }
    }
}

/// Cuts a client's own text to its first 128 characters, for an answer that repeats it.
pub(super) fn shortened(text: &str) -> String {
    match text.char_indices().nth(ECHOED_CHARS_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

struct Notes {
    form: Form,
    /// Errors beyond this many are only counted.
    room: usize,
    /// Pointers of values that their own types refused in an earlier pass. These values are read as absent.
    refused: HashSet<String>,
    found: RefCell<Found>,
}

#[derive(Default)]
struct Found {
    errors: Vec<FieldError>,
    unnamed: usize,
    /// The error that ended this pass.
    refused: Option<FieldError>,
}

impl Notes {
    fn add(&self, at: &Pointer, code: &'static str, detail: impl Into<String>) {
        let mut found = self.found.borrow_mut();
        if found.errors.len() < self.room {
            found.errors.push(FieldError::new(at.text(self.form), code, detail));
        } else {
            found.unnamed += 1;
        }
    }

    fn skips(&self, at: &Pointer) -> bool {
        !self.refused.is_empty() && self.refused.contains(&at.text(self.form))
    }
}

/// Ends a pass. The error for the client is recorded where it occurs.
#[derive(Debug)]
struct FieldMisfit {
    detail: String,
    missing: Option<&'static str>,
}

impl fmt::Display for FieldMisfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for FieldMisfit {}

impl de::Error for FieldMisfit {
    fn custom<T: fmt::Display>(detail: T) -> Self {
        Self { detail: detail.to_string(), missing: None }
    }

    fn missing_field(field: &'static str) -> Self {
        Self { detail: format!("{field} is missing"), missing: Some(field) }
    }
}

struct Reader<'a> {
    value: &'a Value,
    at: Pointer<'a>,
    notes: &'a Notes,
}

impl Reader<'_> {
    fn wrong_type(&self, expected: &str) {
        self.notes.add(&self.at, "wrong-type", format!("expected {expected}, found {}", kind(self.value)));
    }

    /// Records which value was refused by its type, unless a deeper one has been recorded already.
    fn settle<T>(&self, result: Result<T, FieldMisfit>) -> Result<T, FieldMisfit> {
        if let Err(misfit) = &result {
            let mut found = self.notes.found.borrow_mut();
            if found.refused.is_none() {
                // The type's own message may repeat the value.
                let detail = shortened(&misfit.detail);
                found.refused = Some(match misfit.missing {
                    None => FieldError::new(self.at.text(self.notes.form), "invalid-format", detail),
                    Some(field) => {
                        FieldError::new(Pointer::Member(&self.at, field).text(self.notes.form), "required", detail)
                    }
                });
            }
        }
        result
    }

    fn integer(&self, least: i128, most: i128) -> i128 {
        let (whole, huge) = match self.value {
            Value::Number(number) => (
                number.as_i128().or_else(|| number.as_f64().and_then(exact)),
                // A whole number of more than 64 bits has been read as floating point.
                number.as_f64().filter(|float| float.abs() >= i64::MAX as f64),
            ),
            Value::String(text) if self.notes.form == Form::Query => (text.parse().ok(), None),
            Value::String(_) | Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => (None, None),
        };
        match whole {
            Some(whole) if (least..=most).contains(&whole) => return whole,
            None if huge.is_none() => self.wrong_type("a whole number"),
            Some(_) | None => self.notes.add(&self.at, "out-of-range", format!("must be {least} to {most}")),
        }
        0
    }

    fn float(&self) -> f64 {
        let text = if self.notes.form == Form::Query { self.value.as_str() } else { None };
        self.value.as_f64().or_else(|| text?.parse().ok()).unwrap_or_else(|| {
            self.wrong_type("a number");
            0.0
        })
    }

    fn elements(&self) -> &[Value] {
        self.value.as_array().map_or_else(
            || {
                self.wrong_type("a list");
                &[][..]
            },
            Vec::as_slice,
        )
    }
}

/// Returns the whole number that a float such as `5.0` stands for: in JSON (RFC 8259, section 6) and for a JSON Schema
/// `integer`, the two are the same. Beyond 2^53 a double cannot represent every whole number.
fn exact(float: f64) -> Option<i128> {
    (float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0).then_some(float as i128)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

macro_rules! integers {
    ($($method:ident $visit:ident $type:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldMisfit> {
            let whole = self.integer(<$type>::MIN.into(), <$type>::MAX.into());
            let result = visitor.$visit(<$type>::try_from(whole).unwrap_or_default());
            self.settle(result)
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = FieldMisfit;

    integers! {
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldMisfit> {
        let result = visitor.visit_f64(self.float());
        self.settle(result)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldMisfit> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldMisfit> {
        let text = if self.notes.form == Form::Query { self.value.as_str() } else { None };
        let truth = self.value.as_bool().or_else(|| text?.parse().ok()).unwrap_or_else(|| {
            self.wrong_type("true or false");
            false
        });
        let result = visitor.visit_bool(truth);
        self.settle(result)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldMisfit> {
        let Some(text) = self.value.as_str() else {
            let before = self.notes.found.borrow().errors.len();
            self.wrong_type("text");
            // If the type refuses the placeholder too, the error just recorded is the one that counts, if it was named.
            return visitor.visit_str("").inspect_err(|_| {
                let mut found = self.notes.found.borrow_mut();
                if found.errors.len() > before {
                    found.refused = found.errors.pop();
                }
            });
        };
        let result = visitor.visit_str(text);
        self.settle(result)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldMisfit> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldMisfit> {
        if self.value.is_null() || self.notes.skips(&self.at) { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, FieldMisfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldMisfit> {
        let rest = self.elements().iter().take(ELEMENTS_MAX).enumerate();
        let elements = Elements { at: &self.at, notes: self.notes, rest };
        let result = visitor.visit_seq(elements);
        self.settle(result)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldMisfit> {
        let result = visitor.visit_map(Members::new(&self, None));
        self.settle(result)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldMisfit> {
        let result = visitor.visit_map(Members::new(&self, Some(fields)));
        self.settle(result)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FieldMisfit> {
        let known = self.value.as_str().and_then(|text| variants.iter().find(|variant| **variant == text));
        let variant = known.or(variants.first()).copied().unwrap_or_default();
        if known.is_none() {
            self.notes.add(&self.at, "invalid-format", format!("expected one of {}", variants.join(", ")));
        }
        let result = visitor.visit_enum(Variant(variant));
        self.settle(result)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FieldMisfit> {
        let result = self.value.clone().deserialize_any(visitor).map_err(FieldMisfit::custom);
        self.settle(result)
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

struct Elements<'a> {
    at: &'a Pointer<'a>,
    notes: &'a Notes,
    rest: std::iter::Enumerate<std::iter::Take<std::slice::Iter<'a, Value>>>,
}

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = FieldMisfit;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, FieldMisfit> {
        give_way_in_small_steps();
        let (at, notes) = (self.at, self.notes);
        match self.rest.find(|(index, _)| !notes.skips(&Pointer::Element(at, *index))) {
            None => Ok(None),
            Some((index, value)) => {
                seed.deserialize(Reader { value, at: Pointer::Element(at, index), notes }).map(Some)
            }
        }
    }
}

struct Members<'a> {
    at: &'a Pointer<'a>,
    notes: &'a Notes,
    rest: Option<serde_json::map::Iter<'a>>,
    /// The fields that the struct has; `None` for a map, which takes any.
    fields: Option<&'static [&'static str]>,
    current: Option<(&'a str, &'a Value)>,
}

impl<'a> Members<'a> {
    fn new(reader: &'a Reader<'a>, fields: Option<&'static [&'static str]>) -> Self {
        let object = reader.value.as_object();
        if object.is_none() {
            reader.wrong_type("an object");
        }
        Self { at: &reader.at, notes: reader.notes, rest: object.map(serde_json::Map::iter), fields, current: None }
    }
}

impl<'de> MapAccess<'de> for Members<'_> {
    type Error = FieldMisfit;

    fn next_key_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, FieldMisfit> {
        while let Some((name, value)) = self.rest.as_mut().and_then(Iterator::next) {
            give_way_in_small_steps();
            if self.fields.is_none_or(|fields| fields.contains(&name.as_str())) {
                self.current = Some((name, value));
                let key: StrDeserializer<'_, FieldMisfit> = name.as_str().into_deserializer();
                return seed.deserialize(key).map(Some);
            }
            self.notes.add(&Pointer::Member(self.at, name), "unknown-field", "is not a known field");
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, FieldMisfit> {
        let (name, value) =
            self.current.take().ok_or_else(|| FieldMisfit::custom("a value was asked for before its key"))?;
        seed.deserialize(Reader { value, at: Pointer::Member(self.at, name), notes: self.notes })
    }
}

struct Variant(&'static str);

impl<'de> EnumAccess<'de> for Variant {
    type Error = FieldMisfit;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), FieldMisfit> {
        let name: StrDeserializer<'_, FieldMisfit> = self.0.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

/// Variants without contents only: no field of a request is an enum with contents.
impl<'de> VariantAccess<'de> for Variant {
    type Error = FieldMisfit;

    fn unit_variant(self) -> Result<(), FieldMisfit> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, _: S) -> Result<S::Value, FieldMisfit> {
        Err(FieldMisfit::custom("expected a name alone"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, FieldMisfit> {
        Err(FieldMisfit::custom("expected a name alone"))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, FieldMisfit> {
        Err(FieldMisfit::custom("expected a name alone"))
    }
}

/// Turns `validator`'s tree of errors into a list, in a stable order. Leaves out the errors at or below an invalid field,
/// because a placeholder that breaks a rule is not the client's error.
fn flatten(
    at: &Pointer,
    form: Form,
    against: &ValidationErrors,
    misfits: &HashSet<String>,
    room: usize,
    wrong: &mut Wrong,
) {
    if misfits.contains(&at.text(form)) {
        return;
    }
    let mut fields: Vec<_> = against.errors().iter().collect();
    fields.sort_by_key(|(name, _)| *name);
    for (name, kind) in fields {
        // A rule over several fields is left out while any field is a placeholder.
        let whole = name == "__all__";
        if whole && !misfits.is_empty() {
            continue;
        }
        let member = Pointer::Member(at, name);
        let place = if whole { at } else { &member };
        if misfits.contains(&place.text(form)) {
            continue;
        }
        match kind {
            ValidationErrorsKind::Struct(inner) => flatten(place, form, inner, misfits, room, wrong),
            ValidationErrorsKind::List(elements) => {
                for (index, inner) in elements {
                    flatten(&Pointer::Element(place, *index), form, inner, misfits, room, wrong);
                }
            }
            ValidationErrorsKind::Field(broken) => {
                let fits = room.saturating_sub(wrong.errors.len());
                wrong.unnamed += broken.len().saturating_sub(fits);
                wrong.errors.extend(broken.iter().take(fits).map(|error| {
                    let (code, detail) = say(error);
                    FieldError::new(place.text(form), code, detail)
                }));
            }
        }
    }
}

/// Returns the code and the text for a broken rule. The rules of `input/` bring their own.
fn say(error: &ValidationError) -> (&'static str, String) {
    let bounds = || {
        let bound = |name: &str| error.params.get(name).filter(|bound| !bound.is_null());
        match (bound("min"), bound("max")) {
            (Some(min), Some(max)) => format!("{min} to {max}"),
            (Some(min), None) => format!("{min} or more"),
            (None, Some(max)) => format!("{max} or less"),
            (None, None) => "within the limits".to_owned(),
        }
    };
    let size = match error.params.get("value") {
        Some(Value::String(text)) => text.chars().count(),
        Some(Value::Array(elements)) => elements.len(),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => 0,
    };
    let least = error.params.get("min").and_then(Value::as_u64).unwrap_or(0);
    match error.code.as_ref() {
        "required" => ("required", "is required".to_owned()),
        "range" => ("out-of-range", format!("must be {}", bounds())),
        "length" if (size as u64) < least => ("too-short", format!("its length must be {}", bounds())),
        "length" => ("too-long", format!("its length must be {}", bounds())),
        _ => {
            let code = match error.code {
                std::borrow::Cow::Borrowed(code) => code,
                std::borrow::Cow::Owned(_) => "invalid-format",
            };
            let detail = error.message.as_ref().map_or_else(|| "is not valid".to_owned(), ToString::to_string);
            (code, detail)
        }
    }
}
