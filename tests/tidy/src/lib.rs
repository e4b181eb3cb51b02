//! Rules of the repository, as tests (`tests/it`).
