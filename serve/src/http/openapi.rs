//! `/openapi.json`: what tools read to know the server. Written by hand, in a file beside this one.

use axum::http::header;
use axum::response::{IntoResponse, Response};

pub(crate) async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("openapi.json")).into_response()
}
