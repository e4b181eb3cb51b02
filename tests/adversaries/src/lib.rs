//! See `tests/it`: whoever lies to the real contracts, and what comes of it.
