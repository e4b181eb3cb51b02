//! Tests of a whole network with the real binary (`tests/it`).
