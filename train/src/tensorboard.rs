//! Event files as TensorBoard reads them: records of protocol buffers, each with its length and two checksums.
//!
//! ```text
//! u64: length   u32: masked CRC-32C of the length   Event   u32: masked CRC-32C of the Event
//! Event    1: time, f64   2: step, varint   3: version, text   5: Summary   7: SessionLog
//! Summary  1: Value, repeated   Value  1: tag, text   2: number, f32   SessionLog  1: status, 1 is a start
//! ```

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};

/// An event file.
#[derive(Debug)]
pub struct Events {
    path: PathBuf,
    file: File,
}

/// CRC-32 with Castagnoli's polynomial, reflected; a few bytes at a time, so bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// TensorBoard's protection of checksums that are summed again.
fn masked(bytes: &[u8]) -> [u8; 4] {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

fn record(event: &[u8]) -> Vec<u8> {
    let len = (event.len() as u64).to_le_bytes();
    [&len[..], &masked(&len), event, &masked(event)].concat()
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 128 {
        out.push(value as u8 | 128);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field of bytes: a text or a message.
fn bytes(field: u8, value: &[u8], out: &mut Vec<u8>) {
    out.push(field << 3 | 2);
    varint(value.len() as u64, out);
    out.extend(value);
}

/// An event at a time and step; `rest` are its other fields.
fn event(time: f64, step: u64, rest: &[u8]) -> Vec<u8> {
    let mut out = vec![1 << 3 | 1];
    out.extend(time.to_le_bytes());
    out.push(2 << 3);
    varint(step, &mut out);
    out.extend(rest);
    out
}

fn scalars(values: &[(&str, f64)]) -> Vec<u8> {
    let mut summary = Vec::new();
    for (tag, number) in values {
        let mut value = Vec::new();
        bytes(1, tag.as_bytes(), &mut value);
        value.push(2 << 3 | 5);
        value.extend((*number as f32).to_le_bytes());
        bytes(1, &value, &mut summary);
    }
    let mut out = Vec::new();
    bytes(5, &summary, &mut out);
    out
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64())
}

impl Events {
    /// A new file in `dir`; readers forget what earlier files say of steps after `step`.
    pub fn begin(dir: &Path, step: u64) -> Result<Self> {
        std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
        let time = now();
        let name = format!("events.out.tfevents.{:010}.{:09}.tern", time as u64, (time.fract() * 1e9) as u32);
        let path = dir.join(name);
        let file = File::create(&path).map_err(|e| Error::io(&path, e))?;
        let mut events = Self { path, file };
        let mut version = Vec::new();
        bytes(3, b"brain.Event:2", &mut version);
        events.put(&event(time, 0, &version))?;
        events.put(&event(time, step + 1, &[7 << 3 | 2, 2, 1 << 3, 1]))?;
        Ok(events)
    }

    fn put(&mut self, event: &[u8]) -> Result<()> {
        self.file.write_all(&record(event)).map_err(|e| Error::io(&self.path, e))
    }

    /// Numbers at a step.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        self.put(&event(now(), step, &scalars(values)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_castagnolis() {
        // The check value of CRC-32C, and RFC 3720's 32 zeros.
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn an_event_is_laid_out_as_its_message_says() {
        let event = event(1.0, 300, &scalars(&[("loss", 2.0)]));
        let want = [
            &[0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x10, 0xac, 0x02][..],
            &[0x2a, 13, 0x0a, 11, 0x0a, 4],
            b"loss",
            &[0x15, 0, 0, 0, 0x40],
        ];
        assert_eq!(event, want.concat());
        let whole = record(&event);
        assert_eq!(whole.len(), 12 + event.len() + 4);
        assert_eq!(whole[..8], (event.len() as u64).to_le_bytes());
    }
}
