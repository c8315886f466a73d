//! What the bytes of a random tensor are made of: pieces of random bytes and fixed ones, repeated.

use tern::Encoding;
use tern::Result;
use tern_kernels::{Packing, half};

/// The share of zeros among random trits; real models have 0.3 to 0.42.
pub(super) const ZEROS: f32 = 0.4;

/// Bytes handed over at a time.
const BUFFER: usize = 1 << 20;

/// A byte of four random trits.
const TWO_BITS: Digits = Digits::TwoBits { planes: 4 };

/// Rows that own packings take together.
const GROUP: usize = 16;

/// wyrand: one multiplication for 64 bits.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0xa076_1d64_78bd_642f);
        let product = u128::from(self.0) * u128::from(self.0 ^ 0xe703_7ed1_a0b4_28db);
        (product >> 64) as u64 ^ product as u64
    }

    /// Between 0 and 1.
    fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 24) as f32
    }

    /// The code `trit + 1` of a random trit.
    fn code(&mut self) -> u8 {
        let zeros = (ZEROS * 65536.0) as u64;
        let word = self.next();
        match word & 0xffff {
            x if x < zeros => 1,
            _ => (word >> 32 & 2) as u8,
        }
    }
}

/// Kinds of bytes that hold trits, the first `planes` of a byte's digits random and the others 1, the code of 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Digits {
    /// Four 2-bit codes, the first lowest: I2; and in any other order I2_S, TQ2_0 and packed `uint8`.
    TwoBits { planes: usize },
    /// Five digits, the first lowest: T5.
    T5 { planes: usize },
    /// Five digits, the first highest, as a fraction of 256: TQ1_0. Its bytes of four have a 0 for the fifth.
    FixedPoint { digits: usize },
}

impl Digits {
    /// The byte whose trits are all 0, of own packings.
    fn zeros(self) -> u8 {
        match self {
            Self::T5 { .. } => 1 + 3 + 9 + 28 + 84,
            Self::TwoBits { .. } | Self::FixedPoint { .. } => 0x55,
        }
    }

    fn byte(self, random: &mut Random) -> u8 {
        let mut digits = |planes: usize| {
            let mut digits = [1; 5];
            digits[..planes].iter_mut().for_each(|digit| *digit = random.code());
            digits
        };
        match self {
            Self::TwoBits { planes } => {
                digits(planes)[..4].iter().rev().fold(0, |byte, code| byte << 2 | code)
            }
            Self::T5 { planes } => {
                digits(planes).iter().zip([1, 3, 9, 28, 84]).map(|(digit, weight)| digit * weight).sum()
            }
            Self::FixedPoint { digits: n } => {
                let digits = digits(n);
                let value =
                    digits[..n].iter().chain(&[0]).take(5).fold(0, |value, &d| value * 3 + u16::from(d));
                (value * 256).div_ceil(243) as u8
            }
        }
    }
}

/// The source of all bytes of a file.
pub(super) struct Bytes {
    random: Random,
    /// Two valid bytes for each of 65536 random numbers.
    tables: Vec<(Digits, Vec<u16>)>,
}

impl Bytes {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: Random(seed), tables: Vec::new() }
    }

    /// The place of a table, which is made when it is first asked for.
    fn table(&mut self, digits: Digits) -> usize {
        if let Some(at) = self.tables.iter().position(|(known, _)| *known == digits) {
            return at;
        }
        let mut byte = || u16::from(digits.byte(&mut self.random));
        self.tables.push((digits, (0..=u16::MAX).map(|_| byte() | byte() << 8).collect()));
        self.tables.len() - 1
    }
}

#[derive(Clone)]
enum Piece {
    Fixed(Vec<u8>),
    /// So many bytes that hold trits.
    Trits(Digits, usize),
    /// Draws which of the next 16 rows hold zeros only: this share of them.
    Close(f32),
    /// So many bytes of own blocks that hold trits, but zeros in the rows that were drawn.
    Closed(Digits, usize),
    /// So many bytes of random words, each `& and | or`.
    Masked {
        and: u64,
        or: u64,
        bytes: usize,
    },
    /// An f16 scale of this exponent.
    Scale(u16),
    /// The scale before once more.
    SameScale,
}

/// The bytes of one tensor: `unit` over and over, then `tail`.
pub(super) struct Pattern {
    unit: Vec<Piece>,
    count: usize,
    tail: Vec<Piece>,
}

impl Pattern {
    /// These bytes.
    pub(super) fn fixed(bytes: Vec<u8>) -> Self {
        Self { unit: Vec::new(), count: 0, tail: vec![Piece::Fixed(bytes)] }
    }

    /// f32 ones.
    pub(super) fn ones(count: usize) -> Self {
        Self::fixed(std::iter::repeat_n(1f32.to_le_bytes(), count).flatten().collect())
    }

    /// Numbers of random sign between 1 and 2 times a power of two near `1 / sqrt(cols)`.
    pub(super) fn floats(encoding: Encoding, rows: usize, cols: usize) -> Self {
        let exponent = -((cols as f32).log2() / 2.0).round() as i32;
        let all = rows * cols;
        let masked = |mantissa_bits: u32, width: u32, bias: i32| {
            let lane = 1u64 << (width - 1) | ((1 << mantissa_bits) - 1);
            let value = ((exponent + bias) as u64) << mantissa_bits;
            let spread = |lane: u64| (0..64 / width).fold(0, |word, at| word | lane << (at * width));
            let bytes = all * width as usize / 8;
            Self {
                unit: vec![Piece::Masked { and: spread(lane), or: spread(value), bytes }],
                count: 1,
                tail: Vec::new(),
            }
        };
        match encoding {
            Encoding::F16 => masked(10, 16, 15),
            Encoding::Bf16 => masked(7, 16, 127),
            Encoding::F32 => masked(23, 32, 127),
            Encoding::Q8_0 => {
                let scale = half::f32_to_f16(2f32.powi(exponent + 1) / 127.0);
                let numbers = Piece::Masked { and: !0, or: 0, bytes: 32 };
                Self {
                    unit: vec![Piece::Fixed(scale.to_le_bytes().into()), numbers],
                    count: all / 32,
                    tail: Vec::new(),
                }
            }
            other => unreachable!("no choice of floats is {other}"),
        }
    }

    /// A ternary matrix with scales near `scale`, one for `group` columns, or one for all if `None`; the sizes were measured by
    /// the encoding. Says what a dummy cannot have.
    pub(super) fn trits(
        encoding: Encoding,
        rows: usize,
        cols: usize,
        scale: f32,
        group: Option<usize>,
    ) -> Result<Self, String> {
        let all = rows * cols;
        if let (Some(group), Encoding::I2S | Encoding::Packed) = (group, encoding) {
            return Err(format!(
                "{encoding} holds one scale, and this shape has one for {group} weights; choose i2, t5, q2_0 or pq2_0"
            ));
        }
        if let Some(group) = group.filter(|group| !cols.is_multiple_of(*group)) {
            return Err(format!("a dummy needs whole groups of {group} columns, this has {cols}"));
        }
        // Blocks of `weights`, each a scale and its codes, in the order of the encoding.
        let blocks = |weights: usize, codes: Vec<Piece>, scale_first: bool| {
            let shared = group.map_or(1, |group| group / weights);
            if shared == 0 {
                return Err(format!(
                    "{encoding} holds a scale for {weights} weights, and this shape has more; choose i2, t5, q2_0 or pq2_0"
                ));
            }
            let mut unit = Vec::new();
            for nth in 0..shared {
                let d = match group {
                    None => Piece::Fixed(half::f32_to_f16(scale).to_le_bytes().to_vec()),
                    Some(_) if nth == 0 => Piece::Scale(half::f32_to_f16(below(scale))),
                    Some(_) => Piece::SameScale,
                };
                let at = if scale_first { unit.len() } else { unit.len() + codes.len() };
                unit.extend(codes.iter().cloned());
                unit.insert(at, d);
            }
            Ok(Self { unit, count: all / weights / shared, tail: Vec::new() })
        };
        let plain = |tail| Self {
            unit: vec![Piece::Trits(TWO_BITS, all / 4)],
            count: 1,
            tail: vec![Piece::Fixed(tail)],
        };
        Ok(match encoding {
            Encoding::I2S => {
                let mut tail = vec![0; 32];
                tail[..4].copy_from_slice(&scale.to_le_bytes());
                plain(tail)
            }
            Encoding::Packed => plain(Vec::new()),
            Encoding::Tq2_0 => blocks(256, vec![Piece::Trits(TWO_BITS, 64)], false)?,
            Encoding::Tq1_0 => {
                let digits = |digits| Digits::FixedPoint { digits };
                blocks(256, vec![Piece::Trits(digits(5), 48), Piece::Trits(digits(4), 4)], false)?
            }
            Encoding::Q2_0 => blocks(64, vec![Piece::Trits(TWO_BITS, 16)], true)?,
            Encoding::Pq2_0 => blocks(128, vec![Piece::Trits(TWO_BITS, 32)], true)?,
            Encoding::I2 => {
                Self::own(Packing::I2, |planes| Digits::TwoBits { planes }, rows, cols, scale, group)?
            }
            Encoding::T5 => Self::own(Packing::T5, |planes| Digits::T5 { planes }, rows, cols, scale, group)?,
            other => return Err(format!("a dummy cannot be {other}")),
        })
    }

    /// Own blocks: the planes of the last block that lie behind the last column hold zeros.
    fn own(
        packing: Packing,
        digits: fn(usize) -> Digits,
        rows: usize,
        cols: usize,
        scale: f32,
        group: Option<usize>,
    ) -> Result<Self, String> {
        if !rows.is_multiple_of(GROUP) || !cols.is_multiple_of(4) {
            return Err(format!(
                "a dummy needs a multiple of 16 rows and of 4 columns, this has {rows} x {cols}"
            ));
        }
        let planes = packing.block_cols() / 4;
        let (whole, rest) = (cols / packing.block_cols(), cols % packing.block_cols() / 4);
        let mut unit = vec![Piece::Trits(digits(planes), whole * 64)];
        if rest > 0 {
            unit.push(Piece::Trits(digits(rest), 64));
        }
        let count = group.map_or(1, |group| rows * (cols / group));
        let mut head = vec![0; 64];
        head[..4].copy_from_slice(&(group.unwrap_or(0) as u32).to_le_bytes());
        head[4..8].copy_from_slice(&(count as u32).to_le_bytes());
        let scales = match group {
            None => Piece::Fixed(scale.to_le_bytes().to_vec()),
            // Numbers that are f16, as the scales of real models.
            Some(_) => {
                let twice = |word: u32| u64::from(word) << 32 | u64::from(word);
                Piece::Masked { and: twice(0x7f_e000), or: twice(below(scale).to_bits()), bytes: 4 * count }
            }
        };
        let padding = vec![0; (4 * count).next_multiple_of(64) - 4 * count];
        Ok(Self { unit, count: rows / GROUP, tail: vec![Piece::Fixed(head), scales, Piece::Fixed(padding)] })
    }

    /// Lets this share of rows hold zeros only: a matrix in own blocks.
    pub(super) fn close(mut self, share: f32) -> Self {
        for piece in &mut self.unit {
            if let Piece::Trits(digits, bytes) = *piece {
                *piece = Piece::Closed(digits, bytes);
            }
        }
        self.unit.insert(0, Piece::Close(share));
        self
    }

    /// Hands the bytes over, a buffer at a time.
    pub(super) fn write(&self, bytes: &mut Bytes, put: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
        let mut buffer = Vec::with_capacity(BUFFER + 8);
        let mut last = [0; 2];
        let mut closed = [false; GROUP];
        for nth in 0..=self.count {
            let pieces = if nth < self.count { &self.unit } else { &self.tail };
            for piece in pieces {
                match piece {
                    Piece::Scale(exponent) => {
                        last = (bytes.random.next() as u16 & 0x3ff | exponent).to_le_bytes();
                        buffer.extend_from_slice(&last);
                    }
                    Piece::SameScale => buffer.extend_from_slice(&last),
                    Piece::Fixed(fixed) => buffer.extend_from_slice(fixed),
                    Piece::Close(share) => closed.fill_with(|| bytes.random.unit() < *share),
                    Piece::Trits(digits, length) | Piece::Closed(digits, length) => {
                        let at = bytes.table(*digits);
                        let Bytes { random, tables } = bytes;
                        let table = &tables[at].1;
                        let pick = |index: u64| u64::from(table[(index & 0xffff) as usize]);
                        let mut word = || {
                            let r = random.next();
                            pick(r) | pick(r >> 16) << 16 | pick(r >> 32) << 32 | pick(r >> 48) << 48
                        };
                        if let Piece::Trits(..) = piece {
                            fill(&mut buffer, *length, &mut word, put)?;
                            continue;
                        }
                        // A word is a block's part of two rows.
                        let zeros = u64::from_le_bytes([digits.zeros(); 8]);
                        let mut row = 0;
                        let mut word = || {
                            let mask = [0, 1].map(|r| if closed[row + r] { u64::from(u32::MAX) } else { 0 });
                            let mask = mask[0] | mask[1] << 32;
                            row = (row + 2) % GROUP;
                            word() & !mask | zeros & mask
                        };
                        fill(&mut buffer, *length, &mut word, put)?;
                    }
                    Piece::Masked { and, or, bytes: length } => {
                        fill(&mut buffer, *length, &mut || bytes.random.next() & and | or, put)?;
                    }
                }
            }
            if buffer.len() >= BUFFER {
                put(&buffer)?;
                buffer.clear();
            }
        }
        put(&buffer)
    }
}

/// The power of two from which random numbers up to its double are `scale` on average.
fn below(scale: f32) -> f32 {
    2f32.powi((scale / 1.5).log2().round() as i32)
}

/// Appends so many bytes of random words.
fn fill(
    buffer: &mut Vec<u8>,
    bytes: usize,
    word: &mut impl FnMut() -> u64,
    put: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut left = bytes;
    while left > 0 {
        if buffer.len() >= BUFFER {
            put(buffer)?;
            buffer.clear();
        }
        let n = left.min(BUFFER - buffer.len());
        let start = buffer.len();
        buffer.resize(start + n, 0);
        let (words, rest) = buffer[start..].as_chunks_mut::<8>();
        words.iter_mut().for_each(|bytes| *bytes = word().to_le_bytes());
        rest.copy_from_slice(&word().to_le_bytes()[..rest.len()]);
        left -= n;
    }
    Ok(())
}
