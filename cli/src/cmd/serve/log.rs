//! The server's log on standard error: for people, or for programs.

use std::io::{self, Write};

use serde_json::{Value, json};
use tern::date;

use crate::terminal;

/// A log on standard error in this form.
pub(super) fn written(form: &'static str) -> tern_serve::Log {
    // Half a line may stand there after a write that failed.
    let mut broken = false;
    tern_serve::Log::new(move |entry| {
        let line = match form {
            "json" => entry.to_string(),
            // Requests are not told; what else happens is.
            "none" if !entry["event"].is_string() => return Ok(()),
            _ => plain(entry),
        };
        let mut err = io::stderr().lock();
        let lead = if std::mem::replace(&mut broken, true) { "\n" } else { "" };
        err.write_all(format!("{lead}{line}\n").as_bytes()).and_then(|()| err.flush())?;
        broken = false;
        Ok(())
    })
}

/// An entry of the log for people, on one line that commands no terminal.
fn plain(entry: &Value) -> String {
    let text = |key: &str| terminal::one_line(entry[key].as_str().unwrap_or_default());
    let number = |key: &str| entry[key].as_f64().unwrap_or(0.0);
    let count = |key: &str| entry[key].as_u64().unwrap_or(0);
    match entry["event"].as_str() {
        Some("listening") => return format!("listening on {}", text("url")),
        Some("ready") => {
            return format!(
                "{} is ready: {} answers at a time, {} tokens each, {:.1} MiB for keys and values",
                text("model"),
                count("parallel"),
                count("context"),
                number("kv_bytes") / f64::from(1 << 20),
            );
        }
        Some("dropped") => return format!("{} lines of this log were lost", count("lines")),
        Some(event) => {
            let about = if entry["message"].is_string() { text("message") } else { text("model") };
            return format!("{}: {about}", terminal::one_line(event));
        }
        None => {}
    }
    let mut line = format!(
        "{} {} {} {} {}",
        date::utc(number("time") as u64),
        count("status"),
        text("method"),
        text("path"),
        text("client"),
    );
    if let Some(key) = entry["key"].as_u64() {
        line += &format!(" key {key}");
    }
    if entry["model"].is_string() {
        let (prompt, answer) = (count("prompt_tokens"), count("completion_tokens"));
        line += &format!(" {} {prompt}+{answer} tokens ({} cached)", text("model"), count("cached_tokens"));
        if let Some(first) = entry["first_token_ms"].as_f64() {
            line += &format!(", first after {first} ms");
        }
        line.push(',');
    }
    line + &format!(" {} ms, {} ({})", number("ms"), text("end"), text("id"))
}

/// A last word in this form, for when nothing else can be done.
pub(super) fn json_error(what: &str) -> String {
    format!("{}\n", json!({"event": "error", "message": what}))
}

/// The same for people.
pub(super) fn plain_error(what: &str) -> String {
    format!("error: {}\n", terminal::one_line(what))
}

/// What to do about an address that cannot be listened on.
pub(super) fn hint(kind: io::ErrorKind, port: u16) -> Option<String> {
    match kind {
        io::ErrorKind::AddrInUse => Some(format!(
            "another program listens on port {port}, perhaps a server that still runs: `--port {}` takes another, \
             `--port 0` a free one",
            port.checked_add(1).unwrap_or(8080)
        )),
        io::ErrorKind::PermissionDenied => Some(
            "ports below 1024 need a right of their own (CAP_NET_BIND_SERVICE): `--port 8080` needs none"
                .to_owned(),
        ),
        io::ErrorKind::AddrNotAvailable => {
            Some("this machine has no such address: `--host 0.0.0.0` is all".to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_one_line_that_commands_no_terminal() {
        let mut entry = json!({
            "time": 1_795_747_445.25, "id": "req-1", "client": "127.0.0.1", "method": "POST", "path": "/v1/x\u{1b}[2J",
            "status": 200, "bytes": 10, "ms": 12.5, "end": "stop"
        });
        assert_eq!(
            plain(&entry),
            "2026-11-27T02:44:05Z 200 POST /v1/x\\u{1b}[2J 127.0.0.1 12.5 ms, stop (req-1)"
        );
        for (key, value) in [
            ("key", json!(2)),
            ("model", json!("story")),
            ("prompt_tokens", json!(3)),
            ("cached_tokens", json!(1)),
            ("completion_tokens", json!(7)),
            ("first_token_ms", json!(0.5)),
        ] {
            entry[key] = value;
        }
        let line = plain(&entry);
        assert!(
            line.ends_with(
                "127.0.0.1 key 2 story 3+7 tokens (1 cached), first after 0.5 ms, 12.5 ms, stop (req-1)"
            ),
            "{line}"
        );
        let ready = plain(&json!({"event": "ready", "model": "a\u{1b}]0;x", "parallel": 1, "context": 2}));
        assert!(!ready.contains('\u{1b}'), "{ready}");
    }
}
