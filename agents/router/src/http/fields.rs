//! The parameters of a request, taken one by one. What is left at the end is refused by name, so that
//! nothing is ignored in silence.

use serde_json::{Map, Value};

use super::error::ApiError;

/// Longest piece of a client's text that is repeated in an error.
const SHOWN: usize = 64;
/// A number is a multiple of a thousandth if it is as near to one as a 64-bit float can tell.
const MILLI_SLACK: f64 = 1e-6;
/// Pairs of `metadata`, and the characters of a key and of a value: OpenAI's own limits.
const MAX_METADATA: (usize, usize, usize) = (16, 64, 512);

/// A JSON object of a request, and its place in it.
#[derive(Debug)]
pub struct Fields {
    map: Map<String, Value>,
    place: String,
}

impl Fields {
    /// The body of a request.
    ///
    /// # Errors
    /// 400 if it is not a JSON object.
    pub fn of_body(body: &[u8]) -> Result<Self, ApiError> {
        let value: Value = serde_json::from_slice(body).map_err(|error| {
            ApiError::invalid(
                "",
                "invalid_json",
                format!("the body is not JSON: {error}; check it with a JSON parser"),
            )
        })?;
        let Value::Object(map) = value else {
            return Err(ApiError::invalid("", "invalid_json", "the body must be a JSON object"));
        };
        Ok(Self::new(map, String::new()))
    }

    /// An object that stands at `place` of a request.
    ///
    /// # Errors
    /// 400 if it is something else.
    pub fn of(value: Value, place: &str) -> Result<Self, ApiError> {
        match value {
            Value::Object(map) => Ok(Self::new(map, format!("{place}."))),
            _ => Err(wrong(place, format!("{place} must be an object"))),
        }
    }

    /// `null` says the same as leaving a parameter out.
    fn new(mut map: Map<String, Value>, place: String) -> Self {
        map.retain(|_, value| !value.is_null());
        Self { map, place }
    }

    /// The full name of a parameter.
    pub fn name(&self, name: &str) -> String {
        format!("{}{}", self.place, shown(name))
    }

    /// Takes a parameter.
    pub fn take(&mut self, name: &str) -> Option<Value> {
        self.map.shift_remove(name)
    }

    /// Takes a parameter that must be there.
    ///
    /// # Errors
    /// 400 that names it, with the `remedy`.
    pub fn need(&mut self, name: &str, remedy: &str) -> Result<Value, ApiError> {
        self.take(name).ok_or_else(|| {
            let name = self.name(name);
            let message = format!("{name} is missing: {remedy}");
            ApiError::invalid(&name, "missing_required_parameter", message)
        })
    }

    /// Refuses parameters that this version does not have; each comes with what to do instead.
    ///
    /// # Errors
    /// 400 that names the first one.
    pub fn refuse(&self, table: &[(&str, &str)]) -> Result<(), ApiError> {
        match table.iter().find(|(name, _)| self.map.contains_key(*name)) {
            Some((name, instead)) => {
                let name = self.name(name);
                Err(unsupported(&name, format!("{name} is not supported: {instead}")))
            }
            None => Ok(()),
        }
    }

    /// Takes a parameter of which only these values are served.
    ///
    /// # Errors
    /// 400 that names it.
    pub fn only(&mut self, name: &str, served: &[Value]) -> Result<(), ApiError> {
        let Some(value) = self.take(name) else { return Ok(()) };
        if served.contains(&value) {
            return Ok(());
        }
        let name = self.name(name);
        let served: Vec<String> = served.iter().map(ToString::to_string).collect();
        let message = format!(
            "{name} must be {} or left out: other values are not built in this version",
            served.join(" or ")
        );
        Err(unsupported(&name, message))
    }

    /// Takes texts that change nothing in an answer; they are neither stored nor sent on.
    ///
    /// # Errors
    /// 400 if one is not a text.
    pub fn drop_texts(&mut self, names: &[&str]) -> Result<(), ApiError> {
        names.iter().try_for_each(|name| self.text(name).map(drop))
    }

    /// Takes OpenAI's `metadata`: a few short texts with names, which change nothing in an answer.
    ///
    /// # Errors
    /// 400 if it is something else.
    pub fn metadata(&mut self) -> Result<Map<String, Value>, ApiError> {
        let Some(value) = self.take("metadata") else { return Ok(Map::new()) };
        let (pairs, key_chars, value_chars) = MAX_METADATA;
        let fits = |map: &Map<String, Value>| {
            map.len() <= pairs
                && map.iter().all(|(key, value)| {
                    key.chars().count() <= key_chars
                        && value.as_str().is_some_and(|v| v.chars().count() <= value_chars)
                })
        };
        match value {
            Value::Object(map) if fits(&map) => Ok(map),
            _ => {
                let message = format!(
                    "metadata must be an object of at most {pairs} texts, with keys of at most {key_chars} characters and values of at most {value_chars}"
                );
                Err(wrong(&self.name("metadata"), message))
            }
        }
    }

    /// Takes a truth value.
    ///
    /// # Errors
    /// 400 if it is something else.
    pub fn boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(value)),
            Some(_) => {
                let name = self.name(name);
                Err(wrong(&name, format!("{name} must be true or false")))
            }
        }
    }

    /// Takes a text.
    ///
    /// # Errors
    /// 400 if it is something else.
    pub fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => {
                let name = self.name(name);
                Err(wrong(&name, format!("{name} must be a string")))
            }
        }
    }

    /// Takes a whole number.
    ///
    /// # Errors
    /// 400 if it is something else or out of the range.
    pub fn count(&mut self, name: &str, low: u32, high: u32) -> Result<Option<u32>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match whole(&value).filter(|v| (low..=high).contains(v)) {
            Some(value) => Ok(Some(value)),
            None => {
                let name = self.name(name);
                let most = if high == u32::MAX { String::new() } else { format!(" to {high}") };
                Err(wrong(&name, format!("{name} must be a whole number from {low}{most}")))
            }
        }
    }

    /// Takes a number in thousandths, exactly.
    ///
    /// # Errors
    /// 400 if it is something else, out of the range, or finer than that.
    pub fn milli(&mut self, name: &str, range: (f64, f64)) -> Result<Option<i32>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let name = self.name(name);
        let (low, high) = range;
        let Some(number) = value.as_f64().filter(|v| *v >= low && *v <= high) else {
            return Err(wrong(&name, format!("{name} must be a number from {low} to {high}")));
        };
        let scaled = number * 1000.0;
        if (scaled - scaled.round()).abs() > MILLI_SLACK {
            let message = format!(
                "{name} has more than three decimals: round it to thousandths, which is what the network signs"
            );
            return Err(wrong(&name, message));
        }
        #[expect(clippy::cast_possible_truncation, reason = "within the range above, which fits")]
        let milli = scaled.round() as i32;
        Ok(Some(milli))
    }

    /// Removes parameters with an empty list: what clients send back of an earlier answer.
    pub fn drop_empty_lists(&mut self) {
        self.map.retain(|_, value| value.as_array().is_none_or(|list| !list.is_empty()));
    }

    /// Everything was taken.
    ///
    /// # Errors
    /// 400 that names a parameter that nobody knows.
    pub fn end(&self) -> Result<(), ApiError> {
        match self.map.keys().next() {
            None => Ok(()),
            Some(name) => {
                let name = self.name(name);
                let message =
                    format!("{name:?} is not a parameter that this router knows: leave it out");
                Err(unsupported(&name, message))
            }
        }
    }
}

/// A whole number that fits; JSON does not tell 1 and 1.0 apart.
fn whole(value: &Value) -> Option<u32> {
    let exact = value.as_u64().and_then(|v| u32::try_from(v).ok());
    exact.or_else(|| {
        let number = value.as_f64()?;
        let fits = number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number in the range"
        )]
        fits.then_some(number as u32)
    })
}

/// 400: a parameter that is not built.
pub fn unsupported(param: &str, message: impl Into<String>) -> ApiError {
    ApiError::invalid(param, "unsupported_parameter", message)
}

/// 400: a parameter with a value that cannot be.
pub fn wrong(param: &str, message: impl Into<String>) -> ApiError {
    ApiError::invalid(param, "invalid_value", message)
}

/// A client's text, as far as it is repeated.
pub fn shown(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}
