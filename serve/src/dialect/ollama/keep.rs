//! Ollama's `keep_alive`: how long a model stays loaded after a request.

use std::time::Duration;

use serde_json::Value;

use crate::error::Refusal;
use crate::models::Keep;

/// A number of seconds or a text such as `5m`; below zero for good. `None` where nothing is said.
pub(super) fn read(asked: Option<&Value>) -> Result<Keep, Refusal> {
    let seconds = match asked {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Number(seconds)) => seconds.as_f64(),
        Some(Value::String(text)) => text.parse().ok().or_else(|| duration(text)),
        Some(_) => None,
    };
    let wrong = || Refusal::field("keep_alive", "expected seconds, or a time such as `5m`, `1h30m` or `-1`");
    let seconds = seconds.filter(|seconds| seconds.is_finite()).ok_or_else(wrong)?;
    // What is too long to be counted is for good.
    Ok(Some(if seconds < 0.0 { None } else { Duration::try_from_secs_f64(seconds).ok() }))
}

/// Seconds of a text such as `1h30m`.
fn duration(text: &str) -> Option<f64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text),
    };
    let mut sum = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let count: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let units = [("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9), ("h", 3600.0), ("m", 60.0), ("s", 1.0)];
        let (unit, seconds) = units.into_iter().find(|(unit, _)| rest.starts_with(unit))?;
        rest = &rest[unit.len()..];
        sum += count * seconds;
    }
    (!text.is_empty()).then_some(sign * sum)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_are_read() {
        let seconds = |count| Some(Some(Duration::from_secs(count)));
        for (asked, expected) in [
            (json!(null), None),
            (json!(0), seconds(0)),
            (json!(30), seconds(30)),
            (json!("30"), seconds(30)),
            (json!("5m"), seconds(300)),
            (json!("1h30m"), seconds(5400)),
            (json!("500ms"), Some(Some(Duration::from_millis(500)))),
            (json!(-1), Some(None)),
            (json!("-1m"), Some(None)),
            (json!(1e300), Some(None)),
        ] {
            assert_eq!(read(Some(&asked)).unwrap(), expected, "{asked}");
        }
        for bad in [
            json!("soon"),
            json!(""),
            json!("5".repeat(3) + "x"),
            json!([1]),
            json!(true),
            json!("m"),
            json!("5 m"),
        ] {
            assert!(read(Some(&bad)).is_err(), "{bad}");
        }
    }
}
