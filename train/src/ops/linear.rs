//! BitLinear: `y = x~ W~ᵀ` with `x~` in int8, one step a token, and `W~` in trits, one scale `m` a matrix. The straight-through
//! estimator takes both quantisers for the identity: `dx = g W~`, `dW = gᵀ x~`.
//!
//! Forward products are the engine's, exact. Backward products are of gradients in 15-bit fixed point
//! (`tern_kernels::Digits`) with the same trits and codes. The float twin has plain float products.

use tern_kernels::{
    Activations, ByteMatrix, Digits, Matrix, Norm, Packing, Product, Scales, Ternary, dense_product,
    digit_product, products, rms_norm, transpose,
};

use super::Machine;

/// A matrix `(outputs, inputs)` as the products of a step want it.
#[derive(Debug)]
pub enum Weight {
    /// Quantised.
    Ternary {
        /// For the forward product.
        packed: Ternary,
        /// For the backward product.
        bytes: ByteMatrix,
        /// `m`.
        scale: f32,
    },
    /// The float twin's: `(inputs, outputs)`.
    Float(Vec<f32>),
}

/// What a step counts about a ternary matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// Weights of -1, 0 and 1.
    pub trits: [u64; 3],
}

/// The scale of a matrix, `max(mean |w|, 1e-5)`: the engine's rule for masters (`tern::codec`), summed in f64.
pub fn absmean(on: Machine, w: &[f32]) -> f32 {
    /// Numbers that are summed by one thread.
    const PIECE: usize = 4096;
    let mut sums = vec![0f64; w.len().div_ceil(PIECE)];
    on.pool.for_chunks(&mut sums, 1, |index, sum| {
        let w = &w[index * PIECE..((index + 1) * PIECE).min(w.len())];
        sum[0] = on.cpu.vectorised(
            #[inline(always)]
            || {
                let mut lanes = [0f64; 8];
                let (whole, rest) = w.as_chunks::<8>();
                for eight in whole {
                    for i in 0..8 {
                        lanes[i] += f64::from(eight[i].abs());
                    }
                }
                lanes.iter().sum::<f64>() + rest.iter().map(|w| f64::from(w.abs())).sum::<f64>()
            },
        );
    });
    ((sums.iter().sum::<f64>() / w.len() as f64) as f32).max(1e-5)
}

/// Trits of `w`: -1 below `-m/2`, 1 above `m/2`, as the engine rounds masters.
pub fn trits(on: Machine, w: &[f32], scale: f32, out: &mut [i8]) {
    let inverse = 1.0 / scale;
    on.pool.for_chunks(out, super::PIECE, |index, out| {
        let w = &w[index * super::PIECE..][..out.len()];
        on.cpu.vectorised(
            #[inline(always)]
            || {
                for (trit, w) in out.iter_mut().zip(w) {
                    let ratio = w * inverse;
                    *trit = i8::from(ratio > 0.5) - i8::from(ratio < -0.5);
                }
            },
        );
    });
}

impl Weight {
    /// Prepares `w (outputs, inputs)` for a step. `room` is scratch.
    pub fn prepare(
        &mut self,
        on: Machine,
        w: &[f32],
        inputs: usize,
        room: &mut Vec<i8>,
    ) -> Result<(), NotFinite> {
        let outputs = w.len() / inputs;
        match self {
            Weight::Ternary { packed, bytes, scale } => {
                *scale = absmean(on, w);
                if !scale.is_finite() {
                    return Err(NotFinite);
                }
                room.resize(w.len(), 0);
                trits(on, w, *scale, room);
                let row = |row: usize| &room[row * inputs..][..inputs];
                let copy = |r: usize, out: &mut [i8]| {
                    out.copy_from_slice(row(r));
                    Ok::<(), std::convert::Infallible>(())
                };
                let Ok(new) = Ternary::pack(Packing::I2, outputs, inputs, Scales::One(*scale), on.pool, copy);
                *packed = new;
                bytes.set(on.cpu, on.pool, outputs, inputs, row);
            }
            Weight::Float(turned) => {
                turned.resize(w.len(), 0.0);
                // A strip of 16 inputs a thread.
                on.pool.for_chunks(turned, 16 * outputs, |strip, out| {
                    let count = out.len() / outputs;
                    transpose(on.cpu, Matrix::new(w, inputs).columns(16 * strip, count), out, outputs);
                });
            }
        }
        Ok(())
    }

    /// Without its matrix, to be prepared.
    pub fn new(is_ternary: bool) -> Self {
        if !is_ternary {
            return Weight::Float(Vec::new());
        }
        let empty =
            Ternary::pack(Packing::I2, 0, 4, Scales::One(1.0), &tern_kernels::Pool::new(1), |_, _| {
                Ok::<(), std::convert::Infallible>(())
            });
        let Ok(packed) = empty;
        Weight::Ternary { packed, bytes: ByteMatrix::default(), scale: 1.0 }
    }
}

/// The input of one or more matrices, kept from the forward pass to the backward pass.
#[derive(Debug)]
pub enum Input {
    /// Quantised.
    Codes(Activations),
    /// The float twin's: `(rows, inputs)`.
    Floats {
        /// The numbers.
        x: Vec<f32>,
        /// In a row.
        cols: usize,
    },
}

/// A number of the input or of a matrix was NaN or infinite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFinite;

impl Input {
    /// Empty.
    pub fn new(is_ternary: bool) -> Self {
        if is_ternary {
            Input::Codes(Activations::default())
        } else {
            Input::Floats { x: Vec::new(), cols: 0 }
        }
    }

    /// Takes the rows of `x` in, each normed first where a norm is given.
    pub fn set(&mut self, on: Machine, x: &[f32], cols: usize, norm: Option<Norm>) -> Result<(), NotFinite> {
        match self {
            Input::Codes(codes) => codes.quantise(on.cpu, on.pool, x, cols, norm).map_err(|_| NotFinite),
            Input::Floats { x: out, cols: width } => {
                *width = cols;
                out.resize(x.len(), 0.0);
                on.pool.for_chunks(out, 8 * cols, |index, out| {
                    let x = &x[index * 8 * cols..][..out.len()];
                    match norm {
                        Some(Norm { weight, eps }) => rms_norm(on.cpu, x, weight, eps, out),
                        None => out.copy_from_slice(x),
                    }
                });
                Ok(())
            }
        }
    }

    /// Tokens in it.
    pub fn rows(&self) -> usize {
        match self {
            Input::Codes(codes) => codes.rows(),
            Input::Floats { x, cols } => x.len().checked_div(*cols).unwrap_or(0),
        }
    }
}

/// `out = x~ W~ᵀ` for each of the matrices.
pub fn forward<const N: usize>(on: Machine, input: &mut Input, list: [(&Weight, &mut [f32]); N]) {
    match input {
        Input::Codes(codes) => {
            let list = list.map(|(weight, out)| match weight {
                Weight::Ternary { packed, .. } => Product { matrix: packed, out },
                Weight::Float(_) => unreachable!("codes meet trits only"),
            });
            products(on.cpu, on.pool, codes, list);
        }
        Input::Floats { x, cols } => {
            for (weight, out) in list {
                let Weight::Float(turned) = weight else { unreachable!("floats meet floats only") };
                let outputs = turned.len() / *cols;
                let (x, turned) = (Matrix::new(x, *cols), Matrix::new(turned, outputs));
                dense_product(on.cpu, on.pool, x, turned, out, outputs, false);
            }
        }
    }
}

/// Room for the operands of backward products.
#[derive(Debug, Default)]
pub struct Room {
    digits: Digits,
    codes: ByteMatrix,
    steps: Vec<f32>,
}

impl Room {
    /// To be called before the matrices of one input go backward.
    pub fn begin(&mut self, on: Machine, input: &Input) {
        if let Input::Codes(codes) = input {
            self.codes.set_codes(on.cpu, on.pool, codes);
            self.steps.clear();
            self.steps.extend((0..codes.rows()).map(|row| codes.step(row)));
        }
    }

    /// `dw = gᵀ x~` (added to it with `add_dw`) and `dx = g W~` (with `add_dx`). `w` is the float matrix, for the twin.
    #[expect(clippy::too_many_arguments, reason = "an operation with two outputs")]
    pub fn backward(
        &mut self,
        on: Machine,
        input: &Input,
        weight: &Weight,
        w: &[f32],
        g: &[f32],
        dw: &mut [f32],
        add_dw: bool,
        dx: &mut [f32],
        add_dx: bool,
    ) {
        let Machine { cpu, pool } = on;
        match (input, weight) {
            (Input::Codes(codes), Weight::Ternary { bytes, scale, .. }) => {
                let outputs = dw.len() / codes.cols();
                self.digits.set_columns(cpu, pool, g, outputs, &self.steps);
                digit_product(cpu, pool, &self.digits, &self.codes, 1.0, dw, add_dw);
                self.digits.set_rows(cpu, pool, g, outputs);
                digit_product(cpu, pool, &self.digits, bytes, *scale, dx, add_dx);
            }
            (Input::Floats { x, cols }, _) => {
                let (g, x) = (Matrix::new(g, dw.len() / cols), Matrix::new(x, *cols));
                dense_product(cpu, pool, g.transposed(), x, dw, *cols, add_dw);
                dense_product(cpu, pool, g, Matrix::new(w, *cols), dx, *cols, add_dx);
            }
            _ => unreachable!("codes meet trits only"),
        }
    }
}
