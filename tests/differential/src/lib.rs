//! See `tests/it`: two implementations of one thing get the same inputs, and must agree.
