//! JSON in which no object has a name twice, at any depth: parsers disagree about which of the two counts.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::yielding::give_way_in_small_steps;

/// Any JSON value in which no object has a name twice.
pub(super) struct Unambiguous(pub(super) Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;

        impl<'de> Visitor<'de> for ValueVisitor {
            type Value = Unambiguous;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any JSON value")
            }

            fn visit_unit<E>(self) -> Result<Unambiguous, E> {
                Ok(Unambiguous(Value::Null))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Unambiguous, E> {
                Ok(Unambiguous(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Unambiguous, E> {
                Ok(Unambiguous(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Unambiguous, E> {
                Ok(Unambiguous(value.into()))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Unambiguous, E> {
                Number::from_f64(value).map(|number| Unambiguous(number.into())).ok_or_else(|| E::custom("not finite"))
            }

            fn visit_str<E>(self, value: &str) -> Result<Unambiguous, E> {
                Ok(Unambiguous(value.into()))
            }

            fn visit_string<E>(self, value: String) -> Result<Unambiguous, E> {
                Ok(Unambiguous(value.into()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Unambiguous, A::Error> {
                let mut elements = Vec::new();
                while let Some(Unambiguous(element)) = access.next_element()? {
                    give_way_in_small_steps();
                    elements.push(element);
                }
                Ok(Unambiguous(elements.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<Unambiguous, A::Error> {
                members(access).map(|map| Unambiguous(map.into()))
            }
        }

        deserializer.deserialize_any(ValueVisitor)
    }
}

fn members<'de, A: MapAccess<'de>>(mut access: A) -> Result<Map<String, Value>, A::Error> {
    let mut map = Map::new();
    while let Some((name, Unambiguous(value))) = access.next_entry::<String, _>()? {
        give_way_in_small_steps();
        if map.insert(name, value).is_some() {
            return Err(de::Error::custom("a name occurs twice in an object"));
        }
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_that_occurs_twice_is_refused_at_any_depth() {
        for text in [r#"{"a":1,"a":2}"#, r#"{"b":[{"a":1,"\u0061":2}]}"#] {
            assert!(serde_json::from_str::<Unambiguous>(text).is_err(), "{text}");
        }
        let Unambiguous(read) = serde_json::from_str(r#"{"a":{"a":[null,true,-1,1,1.5,"x"]}}"#).unwrap();
        assert_eq!(read, json!({"a": {"a": [null, true, -1, 1, 1.5, "x"]}}));
    }
}
