//! How keys and values are kept, and what that takes.

use std::fmt;

/// Positions of a chunk. Attention combines chunk by chunk, so this number decides the order of its additions.
pub(super) const CHUNK: usize = 256;
/// Positions, or elements of a head, that lie side by side.
pub(super) const LANES: usize = 16;

/// How keys are kept, or values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Kept {
    /// As they are computed.
    F32,
    /// Rounded to IEEE binary16.
    #[default]
    F16,
    /// Codes of 8 bits with one scale for each position and head: its largest magnitude / 127.
    Int8,
    /// Rotated within the head, codes of 8 bits with an f16 scale for every 128 elements.
    Q8,
    /// The same in 4 bits; the first token of a text in 8.
    Q4,
    /// The same in 3 bits.
    Q3,
}

/// Elements of a head under one scale of a rotated format.
pub(super) const GROUP: usize = 128;

impl Kept {
    /// Every one, the most exact first.
    pub const ALL: [Kept; 6] = [Kept::F32, Kept::F16, Kept::Int8, Kept::Q8, Kept::Q4, Kept::Q3];

    /// The name used in `--kv`, logs and tables.
    pub fn name(self) -> &'static str {
        match self {
            Kept::F32 => "f32",
            Kept::F16 => "f16",
            Kept::Int8 => "int8",
            Kept::Q8 => "q8",
            Kept::Q4 => "q4",
            Kept::Q3 => "q3",
        }
    }

    /// The one of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kept| kept.name() == name)
    }

    /// Whether it is rotated by a Hadamard transform (`write.rs`), which spreads a large element over all.
    pub(super) fn is_rotated(self) -> bool {
        matches!(self, Kept::Q8 | Kept::Q4 | Kept::Q3)
    }

    /// In how many signed bytes of 7 bits, or in one of 8, the elements of a query are multiplied with these keys; none where
    /// they are floats.
    pub(super) fn query_parts(self) -> usize {
        match self {
            Kept::F32 | Kept::F16 => 0,
            Kept::Int8 | Kept::Q8 => 2,
            // The keys' own error is some ten times that of a query in 8 bits.
            Kept::Q4 | Kept::Q3 => 1,
        }
    }

    /// Elements of a head filled up to whole blocks of keys.
    pub(super) fn padded(self, dim: usize) -> usize {
        match self {
            Kept::F32 | Kept::F16 => dim,
            Kept::Int8 | Kept::Q8 => dim.next_multiple_of(4),
            Kept::Q4 => dim.next_multiple_of(8),
            Kept::Q3 => dim.next_multiple_of(32),
        }
    }

    fn size(self, dim: usize, padded: usize) -> Size {
        let groups = dim.div_ceil(GROUP);
        let scales = match self {
            Kept::F32 | Kept::F16 => 0,
            Kept::Int8 => 4 * CHUNK,
            Kept::Q8 | Kept::Q4 | Kept::Q3 => 2 * groups * CHUNK,
        };
        let codes = match self {
            Kept::F32 => 4 * padded,
            Kept::F16 => 2 * padded,
            Kept::Int8 | Kept::Q8 => padded,
            Kept::Q4 => padded / 2,
            Kept::Q3 => padded / 8 * 3,
        };
        // Parts keep to whole cache lines.
        let first =
            if matches!(self, Kept::Q4 | Kept::Q3) { (dim + 2 * groups).next_multiple_of(64) } else { 0 };
        Size { codes: codes * CHUNK, scales, first }
    }
}

/// How keys and values are kept, each by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct KvFormat {
    /// How the keys are.
    pub keys: Kept,
    /// How the values are.
    pub values: Kept,
}

impl KvFormat {
    /// Both in f32.
    pub const F32: Self = Self::both(Kept::F32);
    /// Both in f16.
    pub const F16: Self = Self::both(Kept::F16);
    /// Both in int8.
    pub const INT8: Self = Self::both(Kept::Int8);
    /// Both alike in each, the most exact first.
    pub const ALL: [Self; 6] = {
        let mut all = [Self::F32; 6];
        let mut i = 0;
        while i < 6 {
            all[i] = Self::both(Kept::ALL[i]);
            i += 1;
        }
        all
    };
    /// What names may be, for messages.
    pub const NAMES: [&'static str; 7] =
        ["f32", "f16", "int8", "q8", "q4", "q3", "two of them with a colon, keys first (`q4:q3`)"];

    /// Keys and values alike.
    pub const fn both(kept: Kept) -> Self {
        Self { keys: kept, values: kept }
    }

    /// The one of this name: one for both, or that of the keys, a colon, that of the values.
    pub fn from_name(name: &str) -> Option<Self> {
        match name.split_once(':') {
            Some((keys, values)) => {
                Some(Self { keys: Kept::from_name(keys)?, values: Kept::from_name(values)? })
            }
            None => Kept::from_name(name).map(Self::both),
        }
    }

    /// Bytes that one position of one head of width `dim` takes, key and value.
    pub fn bytes(self, dim: usize) -> usize {
        Sizes::new(self, dim).part().div_ceil(CHUNK)
    }
}

impl fmt::Display for KvFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.keys == self.values {
            return f.write_str(self.keys.name());
        }
        write!(f, "{}:{}", self.keys.name(), self.values.name())
    }
}

/// The bytes of the keys of one head in a chunk, or of the values.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) codes: usize,
    pub(super) scales: usize,
    pub(super) first: usize,
}

impl Size {
    fn all(self) -> usize {
        self.codes + self.scales + self.first
    }
}

/// The bytes of one head in a chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) keys: Size,
    pub(super) values: Size,
}

impl Sizes {
    pub(super) fn new(format: KvFormat, dim: usize) -> Self {
        let KvFormat { keys, values } = format;
        let wide = dim.next_multiple_of(LANES);
        Self { keys: keys.size(dim, keys.padded(dim)), values: values.size(dim, wide) }
    }

    pub(super) fn part(self) -> usize {
        self.keys.all() + self.values.all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for keys in Kept::ALL {
            for values in Kept::ALL {
                let format = KvFormat { keys, values };
                assert_eq!(KvFormat::from_name(&format.to_string()), Some(format));
            }
        }
        assert_eq!(KvFormat::from_name("q4:q3").unwrap().to_string(), "q4:q3");
        assert_eq!(KvFormat::from_name("q4:q4").unwrap().to_string(), "q4");
        for name in ["", ":", "q4:", ":q4", "q4:q3:q8", "q5", "Q4", "q4 "] {
            assert_eq!(KvFormat::from_name(name), None, "{name}");
        }
    }

    #[test]
    fn a_position_takes_these_bytes() {
        let bytes = |name: &str| KvFormat::from_name(name).unwrap().bytes(128);
        assert_eq!([bytes("f32"), bytes("f16"), bytes("int8")], [1024, 512, 2 * (128 + 4)]);
        // Scales of 2 bytes, and the first token's share of a chunk: 2 bytes, rounded up.
        assert_eq!([bytes("q8"), bytes("q4"), bytes("q3")], [2 * 130, 2 * 66 + 2, 2 * 50 + 2]);
        assert_eq!(bytes("q4:q3"), 66 + 50 + 2);
    }
}
