//! Messages on a connection. Every length is checked against what the kind may have before anything is read or kept.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sum::Summing;

const MAGIC: [u8; 4] = *b"Trn1";
/// Of small messages.
const MAX_SMALL: usize = 1 << 16;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "machines.rs says what each is")]
pub enum Kind {
    Hello,
    Welcome,
    Proof,
    Job,
    Weights,
    Batch,
    Gradient,
    Alive,
    Done,
    Refused,
}

const KINDS: [Kind; 10] = [
    Kind::Hello,
    Kind::Welcome,
    Kind::Proof,
    Kind::Job,
    Kind::Weights,
    Kind::Batch,
    Kind::Gradient,
    Kind::Alive,
    Kind::Done,
    Kind::Refused,
];

/// What is said when a message is none of these.
fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// A connection whose reads end by a moment, however slowly bytes come.
struct Until<'a>(&'a TcpStream, Instant);

impl Read for Until<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = self.1.saturating_duration_since(Instant::now());
        self.0.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.0.read(out)
    }
}

/// A message whose body is still to be read.
pub(crate) struct Incoming<R> {
    pub(crate) kind: Kind,
    pub(crate) len: usize,
    from: Summing<R>,
}

/// The next message: its head.
pub(crate) fn next<R: Read>(from: R) -> io::Result<Incoming<R>> {
    let mut from = Summing::new(from);
    let mut head = [0; 16];
    from.take(&mut head)?;
    let word = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    if head[..4] != MAGIC {
        return Err(wrong("does not speak as a Tern that trains"));
    }
    let kind = KINDS.get(word(4) as usize).ok_or_else(|| wrong(format!("a message of kind {}", word(4))))?;
    let len = u64::from(word(8)) | u64::from(word(12)) << 32;
    let len = usize::try_from(len).map_err(|_| wrong(format!("a message of {len} bytes")))?;
    Ok(Incoming { kind: *kind, len, from })
}

impl<R: Read> Incoming<R> {
    /// The body of a small message.
    pub(crate) fn small(self) -> io::Result<Vec<u8>> {
        self.bytes(MAX_SMALL)
    }

    /// A body of at most so many bytes.
    pub(crate) fn bytes(mut self, most: usize) -> io::Result<Vec<u8>> {
        if self.len > most {
            let what = format!("a message of {} bytes ({:?}): expected at most {most}", self.len, self.kind);
            return Err(wrong(what));
        }
        let mut body = vec![0; self.len];
        self.from.take(&mut body)?;
        self.end()?;
        Ok(body)
    }

    /// A body of so many bytes, then numbers that fill `out`.
    pub(crate) fn numbers<const N: usize>(mut self, out: &mut [f32]) -> io::Result<[u8; N]> {
        let expected = N + 4 * out.len();
        if self.len != expected {
            let what = format!("a message of {} bytes ({:?}): expected {expected}", self.len, self.kind);
            return Err(wrong(what));
        }
        let mut begin = [0; N];
        self.from.take(&mut begin)?;
        self.from.take_floats(out)?;
        self.end()?;
        Ok(begin)
    }

    fn end(mut self) -> io::Result<()> {
        let (sum, mut word) = (self.from.sum, [0; 8]);
        self.from.inner.read_exact(&mut word)?;
        if u64::from_le_bytes(word) == sum { Ok(()) } else { Err(wrong("a message whose checksum is wrong")) }
    }

    /// The body as JSON of this type.
    pub(crate) fn json<T: DeserializeOwned>(self) -> io::Result<T> {
        let kind = self.kind;
        serde_json::from_slice(&self.small()?).map_err(|e| wrong(format!("a message ({kind:?}): {e}")))
    }
}

/// A small message of this kind, which is here whole before `end`; the text of a refusal is an error.
pub(crate) fn greeting<T: DeserializeOwned>(stream: &TcpStream, kind: Kind, end: Instant) -> io::Result<T> {
    let message = next(Until(stream, end))?;
    match message.kind {
        Kind::Refused => Err(refusal(message)?),
        found if found == kind => message.json(),
        found => Err(wrong(format!("a message out of turn: {found:?}, expected {kind:?}"))),
    }
}

/// What the other side refuses for.
pub(crate) fn refusal<R: Read>(message: Incoming<R>) -> io::Result<io::Error> {
    let text: String = message.json()?;
    Ok(io::Error::new(io::ErrorKind::PermissionDenied, printable(&text)))
}

/// What the other side wrote, for a terminal: one line, not long.
pub(crate) fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(300).collect()
}

/// Sends `begin`, then numbers.
pub(crate) fn send(mut to: &TcpStream, kind: Kind, begin: &[u8], numbers: &[f32]) -> io::Result<()> {
    let mut out = Summing::new(io::BufWriter::with_capacity(1 << 18, &mut to));
    let nth = KINDS.iter().position(|found| *found == kind).unwrap_or_default() as u32;
    let len = (begin.len() + 4 * numbers.len()) as u64;
    let mut head = [0; 16];
    head[..4].copy_from_slice(&MAGIC);
    head[4..8].copy_from_slice(&nth.to_le_bytes());
    head[8..].copy_from_slice(&len.to_le_bytes());
    out.put(&head)?;
    out.put(begin)?;
    out.put_floats(numbers)?;
    let sum = out.sum;
    out.inner.write_all(&sum.to_le_bytes())?;
    out.inner.flush()
}

/// Sends a small message.
pub(crate) fn send_json<T: Serialize>(to: &TcpStream, kind: Kind, body: &T) -> io::Result<()> {
    send(to, kind, &serde_json::to_vec(body).map_err(io::Error::other)?, &[])
}

/// What befell a connection, in words.
pub(crate) fn said(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the connection was closed".to_owned(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "it is silent".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (one, listener.accept().unwrap().0)
    }

    /// The bytes of a message.
    fn bytes(kind: Kind, begin: &[u8], numbers: &[f32]) -> Vec<u8> {
        let (one, mut other) = pair();
        send(&one, kind, begin, numbers).unwrap();
        drop(one);
        let mut all = Vec::new();
        other.read_to_end(&mut all).unwrap();
        all
    }

    #[test]
    fn what_is_sent_is_read_and_a_changed_bit_anywhere_is_seen() {
        let numbers = [1.5, -0.0, f32::MIN_POSITIVE];
        let whole = bytes(Kind::Gradient, &7u64.to_le_bytes(), &numbers);
        let read = |bytes: &[u8]| -> io::Result<(Kind, [u8; 8], Vec<u32>)> {
            let mut out = [0f32; 3];
            let message = next(bytes)?;
            let kind = message.kind;
            let begin = message.numbers(&mut out)?;
            Ok((kind, begin, out.iter().map(|x| x.to_bits()).collect()))
        };
        let want = (Kind::Gradient, 7u64.to_le_bytes(), numbers.iter().map(|x| x.to_bits()).collect());
        assert_eq!(read(&whole).unwrap(), want);
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 1;
            assert!(read(&broken).is_err(), "byte {at}");
            assert!(read(&whole[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn no_length_is_believed_and_no_garbage_taken() {
        let mut long = bytes(Kind::Hello, b"{}", &[]);
        long[8..16].copy_from_slice(&(u64::MAX / 2).to_le_bytes());
        let error = next(&long[..]).unwrap().small().unwrap_err().to_string();
        assert!(error.contains("expected at most 65536"), "{error}");
        let error = next(&long[..]).unwrap().numbers::<0>(&mut [0.0]).unwrap_err().to_string();
        assert!(error.contains("expected 4"), "{error}");
        let error = next(&b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..]).err().unwrap().to_string();
        assert!(error.contains("does not speak"), "{error}");
    }

    #[test]
    fn a_greeting_ends_in_time_however_slowly_it_comes() {
        let (one, other) = pair();
        let slow = std::thread::spawn(move || {
            // A byte now and then keeps a plain read timeout from ever coming.
            for byte in bytes(Kind::Hello, b"\"x\"", &[]) {
                if (&one).write_all(&[byte]).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let end = Instant::now() + Duration::from_millis(60);
        let error = greeting::<String>(&other, Kind::Hello, end).unwrap_err();
        assert_eq!(said(&error), "it is silent");
        drop(other);
        slow.join().unwrap();
    }
}
