//! What a person or a script reads on standard output.

use std::io::{self, Write};

use anyhow::Result;
use serde::Serialize;

/// Prints one line. A reader that went away (`assay ... | head`) is not an error.
pub fn line(text: impl AsRef<str>) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{}", text.as_ref()).and_then(|()| out.flush());
}

/// Prints a piece of a line at once.
pub fn piece(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Prints a message for a person, on standard error.
pub fn note(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr().lock(), "{}", text.as_ref());
}

/// Prints `value` as JSON, or the text that `text` makes of it.
pub fn show<T: Serialize + ?Sized>(
    json: bool,
    value: &T,
    text: impl FnOnce(&T) -> String,
) -> Result<()> {
    if json {
        line(serde_json::to_string_pretty(value)?);
    } else {
        line(text(value));
    }
    Ok(())
}
