//! Encodings found on disk: bytes to floats, or to trits and their scales, and back. [`Encoding`] is the one list; how
//! trits lie in memory is the kernels' business.
//!
//! A row is the contiguous numbers of a tensor's innermost dimension. Rows decode one at a time, so no second copy of a
//! tensor is needed. A file is hostile: a code or a scale that no encoder writes is an error, never a number.

mod absmean;
mod coarsest;
mod head;
mod i2_s;
mod iq_bn;
mod k_blocks;
mod mlx;
mod own;
mod packed;
mod plain;
mod q1_0;
mod q2_0;
mod q4_0;
mod q4_q5;
mod q6_k;
mod q8_0;
mod refused;
mod stq1_0;
mod tq1_0;
mod tq2_0;
mod trit_blocks;

use crate::tensor::{Encoding, Tensor};
use std::fmt;
use std::io;
use std::ops::Range;
#[cfg(doc)]
use tern_kernels::Packing;
use tern_kernels::{BadHead, Cpu, OutputHead, Pool, Scales, Ternary, half};

pub(crate) use head::mapped as mapped_head;

/// The encodings that can be read.
const READABLE: [Encoding; 30] = [
    Encoding::F32,
    Encoding::F16,
    Encoding::Bf16,
    Encoding::Q8_0,
    Encoding::Q4_0,
    Encoding::Q4_1,
    Encoding::Q5_0,
    Encoding::Q5_1,
    Encoding::Q2K,
    Encoding::Q3K,
    Encoding::Q4K,
    Encoding::Q5K,
    Encoding::Q6K,
    Encoding::Q1_0,
    Encoding::Q2_0,
    Encoding::Pq2_0,
    Encoding::Ptq1_0,
    Encoding::Stq1_0,
    Encoding::I2S,
    Encoding::I2SArm,
    Encoding::Tq1_0,
    Encoding::Tq2_0,
    Encoding::Iq1Bn,
    Encoding::Iq2Bn,
    Encoding::Iq2BnR4,
    Encoding::Packed,
    Encoding::Mlx2,
    Encoding::I2,
    Encoding::T5,
    Encoding::H8,
];

/// How one encoding lays out a tensor of `rows` by `cols`; each file of `codec/` holds one or a few.
struct Codec {
    name: &'static str,
    /// Its type number in a GGUF.
    gguf: Option<u32>,
    /// The bytes of a tensor, or why it cannot have these sizes.
    len: fn(rows: u64, cols: u64) -> Result<u64, String>,
    read: Read,
    write: Write,
}

enum Read {
    /// The numbers of whole blocks; rows lie one after another.
    Floats(fn(&[u8], &mut [f32])),
    /// The numbers of an output head, whose rows do not lie together.
    Head,
    Trits {
        /// The scales of some rows; with several, values of the first row first.
        scales: fn(&Tensor, Range<usize>) -> Result<Scales, String>,
        /// The trits of one row.
        row: fn(&Tensor, usize, &mut [i8]) -> Result<(), String>,
    },
}

enum Write {
    No,
    /// Appends whole blocks of numbers.
    Floats(fn(&[f32], &mut Vec<u8>) -> Result<(), String>),
    Trits(fn(&mut Source, &mut dyn io::Write) -> Result<(), EncodeError>),
}

impl Encoding {
    fn codec(self) -> Option<&'static Codec> {
        Some(match self {
            Self::F32 => &plain::F32,
            Self::F16 => &plain::F16,
            Self::Bf16 => &plain::BF16,
            Self::Q8_0 => &q8_0::CODEC,
            Self::Q4_0 => &q4_0::CODEC,
            Self::Q4_1 => &q4_q5::Q4_1,
            Self::Q5_0 => &q4_q5::Q5_0,
            Self::Q5_1 => &q4_q5::Q5_1,
            Self::Q2K => &k_blocks::Q2_K,
            Self::Q3K => &k_blocks::Q3_K,
            Self::Q4K => &k_blocks::Q4_K,
            Self::Q5K => &k_blocks::Q5_K,
            Self::Q6K => &q6_k::CODEC,
            Self::Q1_0 => &q1_0::CODEC,
            Self::Q2_0 => &q2_0::Q2_0,
            Self::Pq2_0 => &q2_0::PQ2_0,
            Self::Ptq1_0 => &tq1_0::PTQ1_0,
            Self::Stq1_0 => &stq1_0::CODEC,
            Self::I2S => &i2_s::X86,
            Self::I2SArm => &i2_s::ARM,
            Self::Tq1_0 => &tq1_0::TQ1_0,
            Self::Tq2_0 => &tq2_0::CODEC,
            Self::Iq1Bn => &iq_bn::IQ1_BN,
            Self::Iq2Bn => &iq_bn::IQ2_BN,
            Self::Iq2BnR4 => &iq_bn::IQ2_BN_R4,
            Self::Packed => &packed::CODEC,
            Self::Mlx2 => &mlx::CODEC,
            Self::I2 => &own::I2,
            Self::T5 => &own::T5,
            Self::H8 => &head::H8,
            Self::Tl1 | Self::Tl2 | Self::Other(_) | Self::Dtype(_) => return None,
        })
    }

    /// The name used in messages, options and listings.
    pub fn name(self) -> &'static str {
        match self.codec() {
            Some(codec) => codec.name,
            None => refused::name(self),
        }
    }

    /// Whether the bytes hold trits.
    pub fn is_ternary(self) -> bool {
        self.codec().is_some_and(|codec| matches!(codec.read, Read::Trits { .. }))
    }

    /// The type number in a GGUF.
    pub fn gguf_type(self) -> Option<u32> {
        match self {
            Self::Other(id) => Some(id),
            Self::Tl1 => Some(refused::TL1),
            Self::Tl2 => Some(refused::TL2),
            known => known.codec()?.gguf,
        }
    }

    /// Whether it holds f16 scales, so that Tern keeps an exact one for a whole matrix beside it.
    pub fn rounds_scales(self) -> bool {
        matches!(self, Self::Tq1_0 | Self::Tq2_0 | Self::Q2_0 | Self::Pq2_0 | Self::Ptq1_0)
    }

    /// The encoding of a GGUF type number, where the number alone decides: 36 is the order of published files, and 42
    /// llama.cpp's Q2_0 (see `settle_42`).
    pub fn from_gguf(id: u32) -> Self {
        let known = READABLE.into_iter().find(|encoding| encoding.gguf_type() == Some(id));
        known.unwrap_or(if id == refused::TL1 { Self::Tl1 } else { Self::Other(id) })
    }

    /// The bytes of a tensor of these sizes, outermost first; `None` where the encoding cannot hold them or is not known.
    pub fn bytes(self, dims: &[usize]) -> Option<u64> {
        let (rows, cols) = shape(dims)?;
        (self.codec()?.len)(rows, cols).ok()
    }

    /// The bytes of a ternary matrix with these scales, which only `I2` and `T5` have room for several of.
    pub fn bytes_with(self, dims: &[usize], scales: &Scales) -> Option<u64> {
        let (rows, cols) = shape(dims)?;
        match (own::packing(self), scales) {
            (Some(packing), Scales::Groups { values, .. }) => {
                own::len(packing, rows, cols, values.len() as u64).ok()
            }
            _ => self.bytes(dims),
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(id) => write!(f, "{} (type {id})", self.name()),
            known => f.write_str(known.name()),
        }
    }
}

/// Rows and columns of a tensor; `None` if they cannot be counted.
fn shape(dims: &[usize]) -> Option<(u64, u64)> {
    let (&cols, outer) = dims.split_last().unwrap_or((&1, &[]));
    let rows = outer.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim as u64))?;
    rows.checked_mul(cols as u64)?;
    Some((rows, cols as u64))
}

/// The encoding and the bytes of a tensor of a file that has `room` bytes for it. Settles what the type number leaves
/// open, from the room. What cannot be read may have any length: it gets all the room.
pub(crate) fn measure(encoding: Encoding, dims: &[usize], room: &[u8]) -> Result<(Encoding, u64), String> {
    let (rows, cols) =
        shape(dims).ok_or_else(|| format!("expected sizes that can be counted, found {dims:?}"))?;
    if let Some(packing) = own::packing(encoding) {
        return Ok((encoding, own::measure(packing, rows, cols, room)?));
    }
    match encoding.codec() {
        Some(codec) => Ok((encoding, (codec.len)(rows, cols)?)),
        None => {
            let settled = refused::settle(encoding, rows * cols, room.len() as u64);
            let length = refused::length(settled, rows, cols).transpose()?;
            Ok((settled, length.unwrap_or((room.len() as u64).max(1))))
        }
    }
}

/// What type 42 means in a file: llama.cpp's Q2_0, PrismML's PQ2_0 before it got a number of its own, or Tencent's STQ1_0.
/// Nothing says which, but only the right one fills the room between most tensors; `tensors` has the sizes and the room of each
/// tensor of the type. Where none is better than another it is llama.cpp's.
pub(crate) fn settle_42<'a>(
    tensors: impl Iterator<Item = (&'a [usize], u64)> + Clone,
    alignment: u64,
) -> Encoding {
    let votes = |encoding: &Encoding| {
        let fits = |(dims, room): &(&[usize], u64)| {
            encoding.bytes(dims).is_some_and(|length| length <= *room && room - length < alignment)
        };
        tensors.clone().filter(fits).count()
    };
    // The last of the largest.
    [Encoding::Stq1_0, Encoding::Pq2_0, Encoding::Q2_0]
        .into_iter()
        .max_by_key(votes)
        .unwrap_or(Encoding::Q2_0)
}

/// The f16 that `bytes` begin with.
fn f16(bytes: &[u8]) -> f32 {
    half::f16_to_f32(u16::from_le_bytes([bytes[0], bytes[1]]))
}

/// The length of `rows` rows of whole blocks, each of `weights` numbers in `bytes` bytes behind `head` bytes a row.
fn blocks(rows: u64, cols: u64, weights: u64, bytes: u64, head: u64) -> Result<u64, String> {
    if !cols.is_multiple_of(weights) {
        return Err(format!("expected rows of whole blocks of {weights}, found {cols} columns"));
    }
    let row = (cols / weights).checked_mul(bytes).and_then(|row| row.checked_add(head));
    row.and_then(|row| row.checked_mul(rows))
        .ok_or_else(|| format!("expected a size in 64 bits, found {rows} x {cols}"))
}

/// Checks a scale: a finite number that is not negative.
pub(crate) fn check_scale(scale: f32) -> Result<f32, String> {
    if scale.is_finite() && scale.is_sign_positive() {
        return Ok(scale);
    }
    Err(format!("expected a finite scale of 0 or more, found {scale:?}"))
}

/// One row of any encoding as floats; ternary ones as trit times scale.
///
/// # Panics
/// If there is no such row or `out` is not a row long.
pub fn floats(tensor: &Tensor, row: usize, out: &mut [f32]) -> Result<(), String> {
    assert_row(tensor, row, out.len());
    let codec = tensor.encoding.codec().ok_or_else(|| refused::why(tensor.encoding))?;
    match codec.read {
        Read::Floats(decode) => {
            let length = tensor.bytes.len() / tensor.rows();
            decode(&tensor.bytes[row * length..][..length], out);
            if tensor.factor != 1.0 {
                out.iter_mut().for_each(|value| *value *= tensor.factor);
            }
        }
        Read::Head => {
            OutputHead::row_of_file(&tensor.bytes, tensor.rows(), row, out);
            out.iter_mut().for_each(|value| *value *= tensor.factor);
        }
        Read::Trits { scales, row: decode } => {
            let mut trits = vec![0; out.len()];
            decode(tensor, row, &mut trits)?;
            let scales = scales(tensor, row..row + 1)?;
            for (col, (value, trit)) in out.iter_mut().zip(trits).enumerate() {
                *value = f32::from(trit) * scales.at(0, col, tensor.cols());
            }
        }
    }
    Ok(())
}

fn assert_row(tensor: &Tensor, row: usize, length: usize) {
    assert!(row < tensor.rows(), "row {row} of {}", tensor.rows());
    assert_eq!(length, tensor.cols(), "length of a row");
}

/// The rows of a matrix as trits. Those of a float matrix are its own if it is ternary already, and otherwise what absmean makes
/// of them (`absmean.rs`).
#[derive(Debug)]
pub struct Trits<'a> {
    tensor: &'a Tensor,
    scales: Scales,
    /// What |w| must exceed to be a trit: only for floats.
    rule: Option<absmean::Rule>,
}

impl<'a> Trits<'a> {
    /// Reads the scales; for floats that means all weights once.
    pub fn open(tensor: &'a Tensor) -> Result<Self, String> {
        let codec = tensor.encoding.codec().ok_or_else(|| refused::why(tensor.encoding))?;
        match codec.read {
            Read::Floats(decode) => {
                let rule = absmean::Rule::of(tensor, codec, decode)?;
                Ok(Self { tensor, scales: rule.scales.clone(), rule: Some(rule) })
            }
            Read::Head => Err("holds an output head, and no matrix of trits".to_owned()),
            Read::Trits { scales, .. } => {
                Ok(Self { tensor, scales: scales(tensor, 0..tensor.rows())?, rule: None })
            }
        }
    }

    /// Whether the trits and scales are the tensor's weights; those of a float matrix may be rounded.
    pub fn is_exact(&self) -> bool {
        self.rule.as_ref().is_none_or(|rule| rule.exact)
    }

    /// The scales: a weight is its trit times its scale.
    pub fn scales(&self) -> &Scales {
        &self.scales
    }

    /// The trits of one row.
    ///
    /// # Panics
    /// If there is no such row or `out` is not a row long.
    pub fn row(&self, row: usize, out: &mut [i8]) -> Result<(), String> {
        assert_row(self.tensor, row, out.len());
        let codec = self.tensor.encoding.codec().expect("`open` refuses tensors without a codec");
        match codec.read {
            Read::Floats(decode) => {
                let rule = self.rule.as_ref().expect("`open` finds a rule for floats");
                rule.row(self.tensor, codec, decode, row, out);
                Ok(())
            }
            Read::Head => unreachable!("`open` refuses heads"),
            Read::Trits { row: decode, .. } => decode(self.tensor, row, out),
        }
    }
}

/// Whether the weights of a matrix are ternary as they are: by their encoding, or floats that hold nothing else.
pub fn is_ternary(tensor: &Tensor) -> bool {
    tensor.encoding.codec().is_some_and(|codec| match codec.read {
        Read::Floats(decode) => absmean::is_exact(tensor, codec, decode),
        Read::Head => false,
        Read::Trits { .. } => true,
    })
}

/// An `I2` or `T5` tensor as it lies in the file, its scales read but its blocks not looked at: a damaged byte is found
/// by [`Packing::invalid_byte`], which takes as long as reading the file. `None` for other encodings.
pub fn mapped(tensor: &Tensor) -> Result<Option<Ternary>, String> {
    own::packing(tensor.encoding).map(|packing| own::mapped(packing, tensor)).transpose()
}

/// Why an encoding that Tern writes has no room for these scales of rows of `cols`, if so. One scale for a whole matrix goes into
/// every encoding: where that rounds it, the exact one is kept beside the tensor.
pub fn lacks_room(encoding: Encoding, scales: &Scales, cols: usize) -> Option<String> {
    let Scales::Groups { size, values } = scales else { return None };
    let weights = match encoding {
        Encoding::I2 | Encoding::T5 => return None,
        Encoding::Q2_0 => 64,
        Encoding::Pq2_0 | Encoding::Ptq1_0 => 128,
        Encoding::Tq1_0 | Encoding::Tq2_0 => 256,
        one => return Some(format!("has more than one scale, and {one} holds one")),
    };
    if *size < cols && size % weights != 0 {
        return Some(format!(
            "has a scale for {size} weights of a row, and {encoding} holds one for {weights}"
        ));
    }
    let exact = |scale: f32| half::f16_to_f32(half::f32_to_f16(scale)) == scale;
    let odd = values.iter().find(|scale| !exact(**scale))?;
    Some(format!("has a scale of {odd:?}, and those of {encoding} are f16"))
}

/// Writes the trits of a row, each -1, 0 or 1.
pub type Rows<'a> = dyn FnMut(usize, &mut [i8]) -> Result<(), String> + 'a;

/// A ternary matrix to be encoded, its rows asked for one at a time (packed `uint8` asks out of order).
pub struct Source<'a> {
    /// The number of rows.
    pub rows: usize,
    /// The length of a row.
    pub cols: usize,
    /// The scales of its weights.
    pub scales: &'a Scales,
    /// Where the rows come from.
    pub row: &'a mut Rows<'a>,
}

impl Source<'_> {
    /// The one scale of the matrix, where an encoding has room for no more.
    fn one_scale(&self, encoding: &str) -> Result<f32, EncodeError> {
        match self.scales {
            Scales::One(scale) => Ok(check_scale(*scale)?),
            _ => Err(format!("{encoding} holds one scale for a matrix, found several").into()),
        }
    }
}

/// Why a tensor was not written.
#[derive(Debug)]
pub enum EncodeError {
    /// The rows cannot be read, or the encoding cannot hold them.
    Tensor(String),
    /// The output does not take them.
    Io(io::Error),
}

impl From<String> for EncodeError {
    fn from(what: String) -> Self {
        Self::Tensor(what)
    }
}

impl From<io::Error> for EncodeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Writes a ternary matrix: exactly [`Encoding::bytes`] bytes.
///
/// Two encodings leave something to the caller: the scale of `Packed` is another tensor, and blocks with f16 scales
/// round theirs, so the exact one goes into the metadata ([`crate::keys::SCALE_NAMES`]).
pub fn encode_ternary(
    encoding: Encoding,
    mut source: Source,
    out: &mut dyn io::Write,
) -> Result<(), EncodeError> {
    let codec = encoding.codec().ok_or_else(|| refused::why(encoding))?;
    (codec.len)(source.rows as u64, source.cols as u64)?;
    match codec.write {
        Write::Trits(encode) => encode(&mut source, out),
        _ => Err(format!("{encoding} is no encoding that Tern writes trits in").into()),
    }
}

/// Appends one row of floats: exactly [`Encoding::bytes`] bytes. A number beyond the reach of the encoding is an error.
pub fn encode_floats(encoding: Encoding, row: &[f32], out: &mut Vec<u8>) -> Result<(), String> {
    let codec = encoding.codec().ok_or_else(|| refused::why(encoding))?;
    (codec.len)(1, row.len() as u64)?;
    match codec.write {
        Write::Floats(encode) => encode(row, out),
        _ => Err(format!("{encoding} is no encoding that Tern writes floats in")),
    }
}

/// Writes a matrix of floats as an output head ([`Encoding::H8`]): exactly [`Encoding::bytes`] bytes. All of the head is in
/// memory meanwhile.
pub fn encode_head(tensor: &Tensor, pool: &Pool, out: &mut dyn io::Write) -> Result<(), EncodeError> {
    let row = |row: usize, out: &mut [f32]| floats(tensor, row, out);
    let head = OutputHead::build(Cpu::best(), pool, tensor.rows(), tensor.cols(), row).map_err(bad_head)?;
    tensor.bytes.release();
    Ok(head.write(|part| out.write_all(part))?)
}

/// What is wrong with a matrix that cannot be a head.
pub(crate) fn bad_head(bad: BadHead<String>) -> String {
    match bad {
        BadHead::Row(what) => what,
        BadHead::NotFinite(row) => format!("row {row} holds a value that is not a number"),
    }
}
