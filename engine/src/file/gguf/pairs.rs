//! The key-value pairs of a GGUF header, in the order of the file.

use crate::error::quoted;
use crate::{Error, Result};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tern_kernels::Bytes;

/// The type of a value, numbered as in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[expect(missing_docs, reason = "each variant is the type it is named after")]
pub enum Kind {
    U8 = 0,
    I8 = 1,
    U16 = 2,
    I16 = 3,
    U32 = 4,
    I32 = 5,
    F32 = 6,
    Bool = 7,
    String = 8,
    Array = 9,
    U64 = 10,
    I64 = 11,
    F64 = 12,
}

impl Kind {
    const ALL: [(Kind, &str, usize); 13] = [
        // The type, its name in messages, and its bytes where they are fixed.
        (Kind::U8, "u8", 1),
        (Kind::I8, "i8", 1),
        (Kind::U16, "u16", 2),
        (Kind::I16, "i16", 2),
        (Kind::U32, "u32", 4),
        (Kind::I32, "i32", 4),
        (Kind::F32, "f32", 4),
        (Kind::Bool, "bool", 1),
        (Kind::String, "string", 0),
        (Kind::Array, "array", 0),
        (Kind::U64, "u64", 8),
        (Kind::I64, "i64", 8),
        (Kind::F64, "f64", 8),
    ];

    /// The kind with this number.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.get(id as usize).map(|entry| entry.0)
    }

    /// The number in the file.
    pub fn id(self) -> u32 {
        self as u32
    }

    /// The name used in messages.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }

    /// The bytes of one value, where they are fixed.
    pub fn size(self) -> Option<usize> {
        Some(Self::ALL[self as usize].2).filter(|&size| size > 0)
    }
}

/// The elements of an array as they lie in the file: a vocabulary costs no memory beyond the map until it is asked for.
#[derive(Clone, Debug)]
pub struct Array {
    kind: Kind,
    len: usize,
    bytes: Bytes,
}

impl Array {
    /// An array over checked bytes: `len` whole elements, strings in UTF-8, bools 0 or 1.
    pub(super) fn new(kind: Kind, len: usize, bytes: Bytes) -> Self {
        Self { kind, len, bytes }
    }

    /// An array of strings, for writing.
    pub fn from_strings<S: AsRef<str>>(strings: impl IntoIterator<Item = S>) -> Self {
        let (mut len, mut bytes) = (0, Vec::new());
        for string in strings {
            let string = string.as_ref().as_bytes();
            bytes.extend_from_slice(&(string.len() as u64).to_le_bytes());
            bytes.extend_from_slice(string);
            len += 1;
        }
        Self::new(Kind::String, len, bytes.into())
    }

    /// An array of `i32`, for writing.
    pub fn from_i32s(values: &[i32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::new(Kind::I32, values.len(), bytes.into())
    }

    /// An array of `f32`, for writing.
    pub fn from_f32s(values: &[f32]) -> Self {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Self::new(Kind::F32, values.len(), bytes.into())
    }

    /// An array of booleans, for writing.
    pub fn from_bools(values: &[bool]) -> Self {
        let bytes: Vec<u8> = values.iter().map(|is| u8::from(*is)).collect();
        Self::new(Kind::Bool, values.len(), bytes.into())
    }

    /// The type of the elements.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements as they are written: little endian, strings behind their u64 length.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The elements one after another.
    pub fn iter(&self) -> impl Iterator<Item = Value> + '_ {
        let mut rest: &[u8] = &self.bytes;
        (0..self.len).map(move |_| {
            if self.kind == Kind::String {
                return Value::String(next_string(&mut rest).to_owned());
            }
            let size = self.kind.size().expect("arrays of arrays are refused when the header is read");
            let (element, after) = rest.split_at(size);
            rest = after;
            // Only a bool can have changed into none.
            Value::from_bytes(self.kind, element).unwrap_or(Value::Bool(true))
        })
    }

    /// The strings, if that is what the elements are.
    pub fn strings(&self) -> Option<impl Iterator<Item = &str>> {
        let mut rest: &[u8] = &self.bytes;
        (self.kind == Kind::String).then(|| (0..self.len).map(move |_| next_string(&mut rest)))
    }
}

/// Takes one string off the front of bytes that were checked when the header was read. They are the file's own: where
/// another process has changed it since, what is no string is an empty one.
fn next_string<'a>(rest: &mut &'a [u8]) -> &'a str {
    let parts = rest.split_first_chunk::<8>().and_then(|(length, after)| {
        after.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)
    });
    let (string, after) = parts.unwrap_or_default();
    *rest = after;
    std::str::from_utf8(string).unwrap_or_default()
}

/// One value of a GGUF header.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each variant is the type it is named after")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl Value {
    /// The type of the value.
    pub fn kind(&self) -> Kind {
        match self {
            Self::U8(_) => Kind::U8,
            Self::I8(_) => Kind::I8,
            Self::U16(_) => Kind::U16,
            Self::I16(_) => Kind::I16,
            Self::U32(_) => Kind::U32,
            Self::I32(_) => Kind::I32,
            Self::F32(_) => Kind::F32,
            Self::Bool(_) => Kind::Bool,
            Self::String(_) => Kind::String,
            Self::Array(_) => Kind::Array,
            Self::U64(_) => Kind::U64,
            Self::I64(_) => Kind::I64,
            Self::F64(_) => Kind::F64,
        }
    }

    /// A scalar from exactly its bytes; `None` for a bool other than 0 or 1, a wrong length, a string or an array.
    pub(super) fn from_bytes(kind: Kind, bytes: &[u8]) -> Option<Self> {
        Some(match kind {
            Kind::U8 => Self::U8(u8::from_le_bytes(bytes.try_into().ok()?)),
            Kind::I8 => Self::I8(i8::from_le_bytes(bytes.try_into().ok()?)),
            Kind::U16 => Self::U16(u16::from_le_bytes(bytes.try_into().ok()?)),
            Kind::I16 => Self::I16(i16::from_le_bytes(bytes.try_into().ok()?)),
            Kind::U32 => Self::U32(u32::from_le_bytes(bytes.try_into().ok()?)),
            Kind::I32 => Self::I32(i32::from_le_bytes(bytes.try_into().ok()?)),
            Kind::F32 => Self::F32(f32::from_le_bytes(bytes.try_into().ok()?)),
            Kind::Bool if bytes == [0] => Self::Bool(false),
            Kind::Bool if bytes == [1] => Self::Bool(true),
            Kind::U64 => Self::U64(u64::from_le_bytes(bytes.try_into().ok()?)),
            Kind::I64 => Self::I64(i64::from_le_bytes(bytes.try_into().ok()?)),
            Kind::F64 => Self::F64(f64::from_le_bytes(bytes.try_into().ok()?)),
            Kind::Bool | Kind::String | Kind::Array => return None,
        })
    }

    /// The value as an integer, whatever its width.
    pub fn integer(&self) -> Option<i128> {
        Some(match *self {
            Self::U8(v) => v.into(),
            Self::I8(v) => v.into(),
            Self::U16(v) => v.into(),
            Self::I16(v) => v.into(),
            Self::U32(v) => v.into(),
            Self::I32(v) => v.into(),
            Self::U64(v) => v.into(),
            Self::I64(v) => v.into(),
            _ => return None,
        })
    }

    /// What it is and, where short, its value: for the "found" of a message.
    pub fn describe(&self) -> String {
        match self {
            Self::F32(v) => format!("f32 {v}"),
            Self::F64(v) => format!("f64 {v}"),
            Self::Bool(v) => format!("bool {v}"),
            Self::String(v) => format!("string `{}`", quoted(v)),
            Self::Array(v) => format!("array of {} {}", v.len, v.kind.name()),
            integer => {
                format!(
                    "{} {}",
                    integer.kind().name(),
                    integer.integer().expect("all other variants are integers")
                )
            }
        }
    }
}

/// The pairs in the order of the file, each key once.
#[derive(Clone, Debug, Default)]
pub struct Pairs {
    path: PathBuf,
    entries: Vec<(String, Value)>,
    index: HashMap<String, usize>,
}

impl Pairs {
    /// No pairs yet; `path` is named in messages.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), ..Self::default() }
    }

    /// Adds a pair at the end, or changes the value of a key that is there; whether it was new.
    pub fn insert(&mut self, key: &str, value: Value) -> bool {
        match self.index.get(key) {
            Some(&at) => {
                self.entries[at].1 = value;
                false
            }
            None => {
                self.index.insert(key.to_owned(), self.entries.len());
                self.entries.push((key.to_owned(), value));
                true
            }
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.index.get(key).map(|&at| &self.entries[at].1)
    }

    /// All pairs in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.entries.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// The number of pairs.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The file the pairs are from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An error about one key of this file.
    pub fn error(&self, key: &str, what: impl Into<String>) -> Error {
        Error::key(&self.path, key, what)
    }

    /// The value of `key` through `read`, or an error that says what was `expected`.
    fn typed<'a, T>(
        &'a self,
        key: &str,
        expected: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match read(value) {
            Some(value) => Ok(Some(value)),
            None => Err(self.error(key, format!("expected {expected}, found {}", value.describe()))),
        }
    }

    /// An integer of any width that fits.
    pub fn u32(&self, key: &str) -> Result<Option<u32>> {
        self.typed(key, "a number that fits u32", |value| u32::try_from(value.integer()?).ok())
    }

    /// An integer of any width that fits.
    pub fn u64(&self, key: &str) -> Result<Option<u64>> {
        self.typed(key, "a number that fits u64", |value| u64::try_from(value.integer()?).ok())
    }

    /// A finite float.
    pub fn f32(&self, key: &str) -> Result<Option<f32>> {
        self.typed(key, "a finite f32", |value| {
            match *value {
                Value::F32(v) => Some(v),
                Value::F64(v) => Some(v as f32),
                _ => None,
            }
            .filter(|v| v.is_finite())
        })
    }

    /// A bool.
    pub fn bool(&self, key: &str) -> Result<Option<bool>> {
        self.typed(key, "bool", |value| match *value {
            Value::Bool(v) => Some(v),
            _ => None,
        })
    }

    /// A string.
    pub fn str(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "string", |value| match value {
            Value::String(v) => Some(v.as_str()),
            _ => None,
        })
    }

    /// An array of strings.
    pub fn strings(&self, key: &str) -> Result<Option<Vec<&str>>> {
        self.typed(key, "array of string", |value| match value {
            Value::Array(array) => Some(array.strings()?.collect()),
            _ => None,
        })
    }

    /// An array of integers of any width that fit.
    pub fn i32s(&self, key: &str) -> Result<Option<Vec<i32>>> {
        self.typed(key, "array of integers that fit i32", |value| match value {
            Value::Array(array) => array.iter().map(|v| i32::try_from(v.integer()?).ok()).collect(),
            _ => None,
        })
    }

    /// An array of booleans.
    pub fn bools(&self, key: &str) -> Result<Option<Vec<bool>>> {
        self.typed(key, "array of booleans", |value| match value {
            Value::Array(array) => array
                .iter()
                .map(|element| if let Value::Bool(is) = element { Some(is) } else { None })
                .collect(),
            _ => None,
        })
    }

    /// An array of floats.
    pub fn f32s(&self, key: &str) -> Result<Option<Vec<f32>>> {
        self.typed(key, "array of f32", |value| match value {
            Value::Array(array) if array.kind == Kind::F32 => {
                Some(array.bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
            }
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_that_changed_under_the_reader_are_empty() {
        let three = Array::from_strings(["one", "two", "three"]);
        let changed = |at: usize, byte: u8| {
            let mut bytes = three.bytes().to_vec();
            bytes[at] = byte;
            Array::new(Kind::String, 3, bytes.into())
        };
        let strings = |array: &Array| array.strings().unwrap().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(strings(&three), ["one", "two", "three"]);
        assert_eq!(strings(&changed(8, 0xff)), ["", "two", "three"], "no UTF-8");
        assert_eq!(strings(&changed(7, 0x80)), ["", "", ""], "a length beyond the end");
        assert_eq!(changed(7, 0x80).iter().count(), 3);
    }
}
