//! HTTP itself: connections, who may enter, the route table, what the server says about itself.

pub(crate) mod connection;
pub(crate) mod door;
mod info;
mod line;
mod openapi;
pub(crate) mod routes;
pub mod tls;
