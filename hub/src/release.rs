//! Which release of Tern is the newest: one question to one address, asked by nothing but `tern update-check`.

use std::fmt;
use std::io::Read;
use std::str::FromStr;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::http::{Limits, agent};

/// Where the newest release is told: JSON with the tag in `tag_name`.
pub const RELEASES: &str = "https://api.github.com/repos/tern-lm/tern/releases/latest";

/// An answer has some kilobytes.
const ANSWER_BYTES: u64 = 1 << 20;

/// The three numbers of a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version([u32; 3]);

impl FromStr for Version {
    type Err = ();

    /// Reads `1.2.3` or the tag `v1.2.3`, and nothing that looks like it.
    fn from_str(text: &str) -> Result<Self, ()> {
        let number = |part: &str| {
            let digits = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| part.parse().ok()).flatten()
        };
        let parts: Option<Vec<u32>> = text.strip_prefix('v').unwrap_or(text).split('.').map(number).collect();
        parts.and_then(|parts| parts.try_into().ok()).map(Self).ok_or(())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self([major, minor, patch]) = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}

/// Asks `url` for the newest release, once. What it sends is this program's name and version, as every request does.
pub fn latest_release(url: &str, limits: Limits) -> Result<Version> {
    if !url.starts_with("https://") && !url.starts_with("http://") {
        return Err(Error::Name(format!("{url}: expected an address that begins with https://")));
    }
    let agent = agent(url.starts_with("https://"), limits)?;
    let network = |error: &dyn fmt::Display| Error::Network(format!("{url}: {error}"));
    // The whole of it in one bound: a server that drips bytes holds nobody.
    let request = agent.get(url).config().timeout_global(Some(limits.stall)).build();
    let response = request.call().map_err(|error| network(&error))?;
    match response.status().as_u16() {
        200 => {}
        404 => return Err(Error::Protocol(format!("{url}: there is no release yet"))),
        status => return Err(Error::Protocol(format!("{url}: it answered {status}"))),
    }
    let mut body = Vec::new();
    let mut reader = response.into_body().into_reader().take(ANSWER_BYTES + 1);
    reader.read_to_end(&mut body).map_err(|error| network(&error))?;
    if body.len() as u64 > ANSWER_BYTES {
        return Err(Error::Protocol(format!("{url}: its answer is over 1 MiB")));
    }
    let answer: Option<Value> = serde_json::from_slice(&body).ok();
    let version = answer.as_ref().and_then(|answer| answer["tag_name"].as_str()?.parse().ok());
    version.ok_or_else(|| {
        Error::Protocol(format!("{url}: expected JSON with a tag such as `v1.2.3` in `tag_name`"))
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write};
    use std::net::TcpListener;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn versions_are_three_numbers_in_their_order() {
        let version = |text: &str| text.parse::<Version>().unwrap();
        assert!(version("v0.10.0") > version("0.9.12") && version("1.0.0") > version("0.99.99"));
        assert_eq!(version("v1.2.3").to_string(), "1.2.3");
        for wrong in
            ["", "v", "1.2", "1.2.3.4", "1.2.x", "1.2.3-rc.1", "+1.2.3", "1..3", "vv1.2.3", "1.2.99999999999"]
        {
            assert!(wrong.parse::<Version>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_server_that_drips_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/latest", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            assert!(stream.read(&mut [0; 4096]).unwrap() > 0);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n");
            // Each byte comes well within the bound on a pause.
            while stream.write_all(b" ").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let limits = Limits { stall: Duration::from_millis(300), ..Limits::default() };
        let begun = Instant::now();
        let error = latest_release(&url, limits).unwrap_err();
        assert!(matches!(error, Error::Network(_)), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        server.join().unwrap();
    }
}
