//! The clock. Rust's own, but in WebAssembly, where it has none: there the browser's.

pub(crate) use web_time::{Instant, SystemTime, UNIX_EPOCH};
