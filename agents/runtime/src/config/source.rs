//! A tree of settings whose texts take the type that the field wants.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{self, Deserializer, IntoDeserializer, Visitor};

use super::ConfigError;

/// A setting or a table of settings.
#[derive(Debug, Clone)]
pub(super) enum Node {
    Table(BTreeMap<String, Node>),
    /// From the file: it has its type.
    Typed(toml::Value),
    /// From the environment or a flag: it takes the type of its field.
    Text {
        value: String,
        origin: String,
    },
}

/// What does not fit; never the value, which might be meant to be secret.
#[derive(Debug)]
pub(super) struct Misfit(String);

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Misfit {}

impl de::Error for Misfit {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl Node {
    pub(super) fn empty() -> Self {
        Self::Table(BTreeMap::new())
    }

    pub(super) fn from_table(table: toml::Table) -> Self {
        Self::Table(table.into_iter().map(|(key, value)| (key, Self::from_value(value))).collect())
    }

    fn from_value(value: toml::Value) -> Self {
        match value {
            toml::Value::Table(table) => Self::from_table(table),
            other => Self::Typed(other),
        }
    }

    /// Sets the value at a key with dots; what was there before is replaced.
    pub(super) fn set(
        &mut self,
        key: &str,
        value: String,
        origin: &str,
    ) -> Result<(), ConfigError> {
        let mut node = self;
        let mut walked: Vec<&str> = Vec::new();
        for part in key.split('.') {
            let Self::Table(children) = node else {
                return Err(ConfigError::NotATable {
                    origin: origin.to_string(),
                    key: key.to_string(),
                    parent: walked.join("."),
                });
            };
            node = children.entry(part.to_string()).or_insert_with(Self::empty);
            walked.push(part);
        }
        *node = Self::Text { value, origin: origin.to_string() };
        Ok(())
    }
}

impl IntoDeserializer<'_, Misfit> for Node {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

fn typed<T>(result: Result<T, toml::de::Error>) -> Result<T, Misfit> {
    result.map_err(|error| Misfit(error.message().to_string()))
}

fn parse<T: std::str::FromStr>(value: &str, origin: &str, wanted: &str) -> Result<T, Misfit> {
    value.trim().parse().map_err(|_| Misfit(format!("{origin} is not {wanted}")))
}

/// A method for a scalar: texts are parsed, typed values know themselves.
macro_rules! scalar {
    ($($method:ident => $visit:ident, $wanted:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
            match self {
                Self::Text { value, origin } => visitor.$visit(parse(&value, &origin, $wanted)?),
                Self::Typed(value) => typed(value.$method(visitor)),
                table @ Self::Table(_) => table.deserialize_any(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Node {
    type Error = Misfit;

    scalar! {
        deserialize_bool => visit_bool, "`true` or `false`";
        deserialize_i8 => visit_i8, "a whole number that fits";
        deserialize_i16 => visit_i16, "a whole number that fits";
        deserialize_i32 => visit_i32, "a whole number that fits";
        deserialize_i64 => visit_i64, "a whole number that fits";
        deserialize_u8 => visit_u8, "a whole number that fits and is not negative";
        deserialize_u16 => visit_u16, "a whole number that fits and is not negative";
        deserialize_u32 => visit_u32, "a whole number that fits and is not negative";
        deserialize_u64 => visit_u64, "a whole number that fits and is not negative";
        deserialize_u128 => visit_u128, "a whole number that fits and is not negative";
        deserialize_f32 => visit_f32, "a number";
        deserialize_f64 => visit_f64, "a number";
        deserialize_char => visit_char, "one character";
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self {
            Self::Table(children) => visitor.visit_map(MapDeserializer::new(children.into_iter())),
            Self::Typed(value) => typed(value.deserialize_any(visitor)),
            Self::Text { value, origin } => visitor
                .visit_string(value)
                .map_err(|error: Misfit| Misfit(format!("{origin}: {error}"))),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Misfit> {
        match self {
            Self::Text { value, origin } => {
                let items: Vec<Self> = value
                    .split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .map(|item| Self::Text { value: item.to_string(), origin: origin.clone() })
                    .collect();
                visitor.visit_seq(SeqDeserializer::new(items.into_iter()))
            }
            Self::Typed(value) => typed(value.deserialize_seq(visitor)),
            table @ Self::Table(_) => table.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Misfit> {
        match self {
            Self::Text { value, origin } => visitor
                .visit_enum(value.into_deserializer())
                .map_err(|error: Misfit| Misfit(format!("{origin}: {error}"))),
            Self::Typed(value) => typed(value.deserialize_enum(name, variants, visitor)),
            Self::Table(_) => {
                Err(Misfit(format!("{name} is a table; write one of {}", variants.join(", "))))
            }
        }
    }

    serde::forward_to_deserialize_any! {
        str string bytes byte_buf unit unit_struct tuple tuple_struct map struct identifier
        ignored_any i128
    }
}
