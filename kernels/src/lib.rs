//! The arithmetic of ternary models: packed matrices, the kernels of each instruction set, the thread pool.
//!
//! Everything that is `unsafe` for speed lives in this crate. Nothing here knows files, models or tokens.
//!
//! ```
//! use tern_kernels::{Activations, Cpu, Packing, Pool, Scales, Ternary};
//!
//! // Two rows of three trits, one scale of 0.5 for all.
//! let trits = [[1i8, 0, -1], [1, 1, 1]];
//! let pool = Pool::new(1);
//! let matrix = Ternary::pack(Packing::I2, 2, 3, Scales::One(0.5), &pool, |row, out| {
//!     out.copy_from_slice(&trits[row]);
//!     Ok::<(), ()>(())
//! })
//! .unwrap();
//! let mut x = Activations::default();
//! x.quantise(Cpu::best(), &pool, &[1.0, 2.0, 4.0], 3, None).unwrap();
//! let mut y = [0.0; 2];
//! matrix.matmul(Cpu::best(), &pool, &mut x, &mut y);
//! assert!((y[0] - 0.5 * (1.0 - 4.0)).abs() < 0.05);
//! ```

mod activations;
mod attention;
mod buffer;
mod bytes;
pub mod ceiling;
pub mod check;
mod cpu;
mod dense;
mod digits;
mod exponential;
mod float;
mod hadamard;
pub mod half;
mod head;
mod isa;
mod matmul;
mod packing;
mod panels;
mod pool;
mod random;
mod rounding;
mod scales;
mod segments;
mod ternary;
mod tiles;
mod trim;
mod units;

pub use activations::{Activations, Intake, Norm, NotFinite, Rounding};
pub use attention::{
    Attention, Cache, Chunk, ChunkCount, Heads, Kept, KvFormat, MAX_HEAD_DIM, OutOfMemory, Pairing, Place,
    Rows, Unstorable,
};
pub use buffer::Buffer;
pub use bytes::{Bytes, Memory, Owner};
pub use cpu::Cpu;
pub use dense::{Matrix, dense_product, dense_product_here, transpose};
pub use digits::{ByteMatrix, Digits, digit_product};
pub use exponential::exp;
pub use float::{Activation, FloatFormat, decode, dot, dots, gate, rms_norm, rms_norm_here};
pub use hadamard::{hadamard, hadamard_block};
pub use head::{BadHead, HeadInput, HeadScratch, OutputHead, Wanted};
pub use matmul::{Product, products};
pub use packing::Packing;
pub use panels::Panels;
pub use pool::{Pool, default_threads, help};
pub use random::{Random, scramble};
pub use scales::Scales;
pub use ternary::Ternary;
pub use trim::{give_back, keep_little};
pub use units::{ByColumn, ByRow};
