//! The page for people: a few files, embedded. It talks to the same endpoints as everybody else.

use axum::http::{HeaderName, HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};

use crate::error::Refusal;

/// Nothing from elsewhere, nothing inline, no frames around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Every file: its path, its kind, its text.
pub(crate) const FILES: [(&str, &str, &str); 35] = [
    ("/", HTML, include_str!("page/index.html")),
    ("/page/page.css", STYLE, include_str!("page/page.css")),
    ("/page/main.js", SCRIPT, include_str!("page/main.js")),
    ("/page/answer.js", SCRIPT, include_str!("page/answer.js")),
    ("/page/attach.js", SCRIPT, include_str!("page/attach.js")),
    ("/page/clips.js", SCRIPT, include_str!("page/clips.js")),
    ("/page/dom.js", SCRIPT, include_str!("page/dom.js")),
    ("/page/failure.js", SCRIPT, include_str!("page/failure.js")),
    ("/page/files.js", SCRIPT, include_str!("page/files.js")),
    ("/page/formulas.js", SCRIPT, include_str!("page/formulas.js")),
    ("/page/highlight.js", SCRIPT, include_str!("page/highlight.js")),
    ("/page/inline.js", SCRIPT, include_str!("page/inline.js")),
    ("/page/keys.js", SCRIPT, include_str!("page/keys.js")),
    ("/page/list.js", SCRIPT, include_str!("page/list.js")),
    ("/page/markdown.js", SCRIPT, include_str!("page/markdown.js")),
    ("/page/mathml.js", SCRIPT, include_str!("page/mathml.js")),
    ("/page/notice.js", SCRIPT, include_str!("page/notice.js")),
    ("/page/passages.js", SCRIPT, include_str!("page/passages.js")),
    ("/page/pdf-file.js", SCRIPT, include_str!("page/pdf-file.js")),
    ("/page/pdf-fonts.js", SCRIPT, include_str!("page/pdf-fonts.js")),
    ("/page/pdf-syntax.js", SCRIPT, include_str!("page/pdf-syntax.js")),
    ("/page/pdf.js", SCRIPT, include_str!("page/pdf.js")),
    ("/page/picker.js", SCRIPT, include_str!("page/picker.js")),
    ("/page/prompts.js", SCRIPT, include_str!("page/prompts.js")),
    ("/page/render.js", SCRIPT, include_str!("page/render.js")),
    ("/page/search.js", SCRIPT, include_str!("page/search.js")),
    ("/page/server.js", SCRIPT, include_str!("page/server.js")),
    ("/page/settings.js", SCRIPT, include_str!("page/settings.js")),
    ("/page/shelf.js", SCRIPT, include_str!("page/shelf.js")),
    ("/page/store.js", SCRIPT, include_str!("page/store.js")),
    ("/page/symbols.js", SCRIPT, include_str!("page/symbols.js")),
    ("/page/talk.js", SCRIPT, include_str!("page/talk.js")),
    ("/page/tex.js", SCRIPT, include_str!("page/tex.js")),
    ("/page/transfer.js", SCRIPT, include_str!("page/transfer.js")),
    ("/page/tree.js", SCRIPT, include_str!("page/tree.js")),
];

/// The file of this path.
pub(crate) async fn file(uri: Uri) -> Response {
    let Some((_, kind, text)) = FILES.iter().find(|(path, ..)| *path == uri.path()) else {
        return Refusal::not_found(uri.path()).into_response();
    };
    let headers: [(HeaderName, HeaderValue); 4] = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, *text).into_response()
}

#[cfg(test)]
mod tests {
    use super::FILES;

    #[test]
    fn every_file_that_a_file_of_the_page_names_is_served_and_no_other() {
        let mut named = vec!["/".to_owned()];
        for (_, _, text) in FILES {
            for (before, folder) in
                [("href=\"page/", "/page/"), ("src=\"page/", "/page/"), ("from \"./", "/page/")]
            {
                named.extend(
                    text.split(before)
                        .skip(1)
                        .filter_map(|rest| Some(format!("{folder}{}", rest.split_once('"')?.0))),
                );
            }
        }
        named.sort();
        named.dedup();
        let mut served = FILES.map(|(path, ..)| path.to_owned());
        served.sort();
        assert_eq!(named, served);
        let bytes: usize = FILES.iter().map(|(_, _, text)| text.len()).sum();
        assert!(bytes < 250_000, "{bytes}");
    }
}
