//! Clients, many at once: good ones that read streams, and hostile ones.

#![allow(dead_code, reason = "each program that has this uses a part of it")]

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use super::bombs;

/// Good streams at once.
pub(crate) const STREAMS: usize = 16;
/// Hostile clients at once.
pub(crate) const HOSTILE: usize = 64;

/// What good streams got.
#[derive(Debug, Default)]
pub(crate) struct Good {
    pub(crate) tokens: u64,
    pub(crate) answers: u64,
    /// Answers that were refused, cut or another text.
    pub(crate) faults: u64,
    pub(crate) time: Duration,
    /// From a request to its first token, and between two reads of an answer, each time.
    firsts: Vec<Duration>,
    pauses: Vec<Duration>,
    /// The text that all get.
    text: String,
    /// What was wrong the first time.
    fault: String,
}

impl Good {
    pub(crate) fn rate(&self) -> f64 {
        self.tokens as f64 / self.time.as_secs_f64()
    }

    /// The text that all of them got.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    fn add(&mut self, other: Self) {
        self.tokens += other.tokens;
        self.answers += other.answers;
        self.faults += other.faults;
        self.firsts.extend(other.firsts);
        self.pauses.extend(other.pauses);
        if self.text.is_empty() {
            self.text = other.text;
        } else if !other.text.is_empty() && other.text != self.text {
            self.faults += 1;
            self.fault = format!("two texts: {:.60} {:.60}", self.text, other.text);
        }
        if self.fault.is_empty() {
            self.fault = other.fault;
        }
    }
}

impl fmt::Display for Good {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let among = |times: &[Duration], share: f64| {
            let mut times = times.to_vec();
            times.sort();
            times.get(((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1))).copied()
        };
        let of = |times: &[Duration]| {
            let [half, most, all] = [0.5, 0.99, 1.0].map(|share| among(times, share).unwrap_or_default());
            format!("{half:.1?}, 99 % {most:.1?}, at most {all:.1?}")
        };
        let Self { tokens, answers, faults, time, firsts, pauses, fault, .. } = self;
        write!(
            f,
            "{tokens} tokens of {answers} answers in {time:.1?}: {:.0} tokens/s, {faults} faults {fault}; first token after {}; pauses {}",
            self.rate(),
            of(firsts),
            of(pauses)
        )
    }
}

fn post(path: &str, key: &str, body: &str) -> Vec<u8> {
    let key = if key.is_empty() { String::new() } else { format!("authorization: Bearer {key}\r\n") };
    let len = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{key}content-type: application/json\r\ncontent-length: {len}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Runs clients on this thread until all of them have ended.
fn together<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    clients: impl Iterator<Item = F>,
) -> Vec<T> {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return Vec::new();
    };
    runtime.block_on(async {
        let mut running = JoinSet::new();
        clients.for_each(|client| drop(running.spawn(client)));
        let mut results = Vec::new();
        while let Some(Ok(result)) = running.join_next().await {
            results.push(result);
        }
        results
    })
}

/// Streams, one after the other for each key, for so long, but at least so many whole ones.
pub(crate) fn good(address: SocketAddr, keys: &[String], time: Duration, least: u64) -> Good {
    let begin = Instant::now();
    let clients = keys.iter().cloned().map(|key| async move {
        let mut got = Good::default();
        while begin.elapsed() < time || got.answers + got.faults < least {
            // Who must be whole is read to its end.
            let end = if got.answers < least { None } else { Some(begin + time) };
            if stream(address, &key, end, &mut got).await.is_none() {
                got.faults += 1;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        got
    });
    let mut all = Good::default();
    together(clients).into_iter().for_each(|got| all.add(got));
    all.time = begin.elapsed();
    all
}

/// Texts enough to fill these pages of keys and values, so that what a server keeps of texts is there.
pub(crate) fn fill(address: SocketAddr, keys: &[String], pages: usize) {
    let clients = keys.iter().cloned().enumerate().map(|(at, key)| async move {
        for round in 0..2 * pages.div_ceil(STREAMS) {
            let body = json!({
                "messages": [{"role": "user", "content": format!("{at} {round} {}", "and then ".repeat(60))}],
                "max_tokens": 250, "ignore_eos": true,
            });
            if let Ok(mut socket) = TcpStream::connect(address).await {
                let _ = socket.write_all(&post("/v1/chat/completions", &key, &body.to_string())).await;
                let _ = socket.read_to_end(&mut Vec::new()).await;
            }
        }
    });
    together(clients);
}

/// Reads one stream to its end, or to the end of the time; `None` if it was none.
async fn stream(address: SocketAddr, key: &str, end: Option<Instant>, got: &mut Good) -> Option<()> {
    const BEGIN: &[u8] = b"\"content\":\"";
    let body = json!({
        "messages": [{"role": "user", "content": "Tell me a story."}],
        "max_tokens": 200, "ignore_eos": true, "stream": true,
    });
    let asked = Instant::now();
    let mut socket = TcpStream::connect(address).await.ok()?;
    socket.write_all(&post("/v1/chat/completions", key, &body.to_string())).await.ok()?;
    let (mut bytes, mut text, mut whole) = (Vec::new(), String::new(), false);
    let mut last: Option<Instant> = None;
    loop {
        let count = socket.read_buf(&mut bytes).await.ok()?;
        let now = Instant::now();
        let mut from = 0;
        // Events are lines; what is no whole line waits for the rest of it.
        while let Some(line) = bytes[from..].iter().position(|byte| *byte == b'\n') {
            let event = &bytes[from..from + line];
            from += line + 1;
            whole |= event == b"data: [DONE]";
            let Some(at) = event.windows(BEGIN.len()).position(|window| window == BEGIN) else {
                if event.starts_with(b"HTTP/1.1 ") && !event.starts_with(b"HTTP/1.1 200")
                    || event.starts_with(b"data: {\"error")
                {
                    got.fault = String::from_utf8_lossy(event).into_owned();
                    return None;
                }
                continue;
            };
            let piece = &event[at + BEGIN.len()..];
            let end = (0..piece.len()).find(|at| piece[*at] == b'"' && (*at == 0 || piece[at - 1] != b'\\'));
            text += &String::from_utf8_lossy(&piece[..end?]);
            got.tokens += 1;
            match last.replace(now) {
                None => got.firsts.push(now - asked),
                Some(last) if now > last => got.pauses.push(now - last),
                Some(_) => {}
            }
        }
        bytes.drain(..from);
        if end.is_some_and(|end| now >= end) {
            return Some(());
        }
        if count == 0 {
            got.answers += 1;
            if !whole || (!got.text.is_empty() && got.text != text) {
                got.fault = format!("not whole, or another text: {text:.80}");
                return None;
            }
            got.text = text;
            return Some(());
        }
    }
}

/// What hostile clients do, each of them again and again.
#[derive(Clone, Copy, Debug)]
enum Deed {
    /// Grammars, schemas and tools that are made to cost.
    Bomb,
    /// Asks for much, and reads a few bytes at a time.
    Slow,
    /// Asks, and leaves soon after.
    Leave,
    /// Bodies of 8 MB: a text, a heap of brackets, one that never ends.
    Big,
    /// Texts of 1 MB as tokens with their pieces.
    Pieces,
    /// Small texts as tokens, one right after the other.
    Flood,
}

const DEEDS: [(Deed, usize); 6] = [
    (Deed::Bomb, 16),
    (Deed::Slow, 16),
    (Deed::Leave, 12),
    (Deed::Big, 8),
    (Deed::Pieces, 4),
    (Deed::Flood, 8),
];

/// Hostile clients with this key, one in eight with none, for so long; tells how often each thing got which answer.
pub(crate) fn hostile(address: SocketAddr, key: &str, time: Duration) -> String {
    let end = Instant::now() + time;
    let bombs: Arc<Vec<(&'static str, String)>> =
        Arc::new(bombs::all().into_iter().map(|bomb| (bomb.path, bomb.body.to_string())).collect());
    let large: Arc<[String; 3]> = Arc::new([
        json!({"messages": [{"role": "user", "content": "once upon a time ".repeat(490_000)}]}).to_string(),
        format!("{{\"messages\": [{}{{}}]}}", "[],".repeat(2_600_000)),
        json!({"content": "Lily and Tom. ".repeat(70_000), "with_pieces": true}).to_string(),
    ]);
    let deeds = DEEDS.iter().flat_map(|&(deed, count)| std::iter::repeat_n(deed, count));
    let clients = deeds.enumerate().map(|(at, deed)| {
        let (bombs, large) = (bombs.clone(), large.clone());
        let key = if at % 8 == 7 { String::new() } else { key.to_owned() };
        async move {
            let mut counts: BTreeMap<(String, u16), u64> = BTreeMap::new();
            let mut round = at;
            while Instant::now() < end {
                round += HOSTILE;
                let left = end.saturating_duration_since(Instant::now());
                let act = act(address, &key, deed, round, &bombs, &large);
                let status = tokio::time::timeout(left, act).await.ok().flatten();
                *counts.entry((format!("{deed:?}"), status.unwrap_or(0))).or_default() += 1;
            }
            counts
        }
    });
    let mut counts: BTreeMap<(String, u16), u64> = BTreeMap::new();
    for of_one in together(clients) {
        of_one.into_iter().for_each(|(what, count)| *counts.entry(what).or_default() += count);
    }
    let mut told = String::from("hostile, by what they did and the status (0: none):\n");
    for ((deed, status), count) in counts {
        told += &format!("  {deed} {status}: {count}\n");
    }
    told + &format!("  their own work: {:.1?}", work())
}

/// Does it once; the status of the answer if there was one.
async fn act(
    address: SocketAddr,
    key: &str,
    deed: Deed,
    round: usize,
    bombs: &[(&'static str, String)],
    large: &[String; 3],
) -> Option<u16> {
    let chat = "/v1/chat/completions";
    let much = |n: usize| {
        let messages = json!([{"role": "user", "content": "Tell me a story."}]);
        let wish = json!({"messages": messages, "n": n, "logprobs": true, "top_logprobs": 20, "max_tokens": 200, "stream": true});
        post(chat, key, &wish.to_string())
    };
    let small = TcpSocket::new_v4().ok()?;
    if matches!(deed, Deed::Slow) {
        small.set_recv_buffer_size(4096).ok()?;
    }
    let mut socket = small.connect(address).await.ok()?;
    let pause = |ms: u64| tokio::time::sleep(Duration::from_millis(ms));
    match deed {
        Deed::Bomb => {
            let (path, body) = &bombs[round * 7 % bombs.len()];
            socket.write_all(&post(path, key, body)).await.ok()?;
        }
        Deed::Slow => {
            socket.write_all(&much(16)).await.ok()?;
            let mut few = [0; 64];
            let mut head = Vec::new();
            loop {
                let count = socket.read(&mut few).await.ok()?;
                if head.len() < 16 {
                    head.extend_from_slice(&few[..count]);
                }
                if count == 0 {
                    return status(&head);
                }
                pause(200).await;
            }
        }
        Deed::Leave => {
            socket.write_all(&much(1 + round % 4)).await.ok()?;
            pause((round * 37 % 300) as u64).await;
            return None;
        }
        Deed::Big if round % 4 == 3 => {
            let body = post(chat, key, &large[0]);
            socket.write_all(&body[..body.len() / 2]).await.ok()?;
            pause(5000).await;
            return None;
        }
        Deed::Big => socket.write_all(&post(chat, key, &large[round % 2])).await.ok()?,
        Deed::Pieces => socket.write_all(&post("/tokenize", key, &large[2])).await.ok()?,
        Deed::Flood => {
            let body = json!({"content": "once upon a time ".repeat(100)}).to_string();
            socket.write_all(&post("/tokenize", key, &body)).await.ok()?;
        }
    }
    let mut buffer = vec![0; 64 << 10];
    let mut head = Vec::new();
    loop {
        let count = socket.read(&mut buffer).await.ok()?;
        if head.len() < 16 {
            head.extend_from_slice(&buffer[..count.min(16)]);
        }
        if count == 0 {
            return status(&head);
        }
    }
}

fn status(head: &[u8]) -> Option<u16> {
    std::str::from_utf8(head.get(9..12)?).ok()?.parse().ok()
}

/// Time that this process has worked.
fn work() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = rest.split(' ').skip(12).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
