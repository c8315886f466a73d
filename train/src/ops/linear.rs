//! BitLinear: `y = x~ W~ᵀ` with `x~` in int8, one step a token, and `W~` in trits, one scale `m` a matrix. The straight-through
//! estimator takes both quantisers for the identity: `dx = g W~`, `dW = gᵀ x~`.
//!
//! Forward products are the engine's, exact. Backward products are of gradients in 15-bit fixed point
//! (`tern_kernels::Digits`) with the same trits and codes. Where activations stay floats (scales by row or group, and the float
//! twin) all products are of floats, `W~` being trits times scales or `W` itself.
//!
//! Inputs in four bits and their larger half alone are straight through too: the product's `x~` has what was left, `dx` is that
//! of all. Where a Hadamard transform comes first, `dx` is by what it gave; [`Machine::hadamard`] takes it back.

use tern_kernels::{
    Activations, ByteMatrix, Digits, Intake, Matrix, Norm, Packing, Product, Scales, Ternary, dense_product,
    digit_product, products, rms_norm, transpose,
};

use super::Machine;
use super::quantiser::Quantiser;

/// A matrix `(outputs, inputs)` as the products of a step want it.
#[derive(Debug)]
pub enum Weight {
    /// Quantised, for activations that are too.
    Ternary {
        /// For the forward product.
        packed: Ternary,
        /// For the backward product.
        bytes: ByteMatrix,
        /// `m`.
        scale: f32,
    },
    /// The same, of a base that is not trained: there is no gradient by it, and its trits stay packed.
    Frozen(Ternary),
    /// For activations that are floats.
    Float {
        /// How weights are rounded.
        quantiser: Quantiser,
        /// How far: 1 for all of the way.
        share: f32,
        /// `W~ (outputs, inputs)`; nothing in the float twin, whose it is itself.
        rounded: Vec<f32>,
        /// The same as `(inputs, outputs)`.
        turned: Vec<f32>,
    },
}

/// What a step counts about a ternary matrix.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Counts {
    /// Weights of -1, 0 and 1.
    pub trits: [u64; 3],
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
                room.resize(w.len(), 0);
                let Scales::One(found) = Quantiser::Matrix.trits(on, w, inputs, room) else {
                    unreachable!("a matrix has one scale")
                };
                *scale = found;
                if !scale.is_finite() {
                    return Err(NotFinite);
                }
                let row = |row: usize| &room[row * inputs..][..inputs];
                let copy = |r: usize, out: &mut [i8]| {
                    out.copy_from_slice(row(r));
                    Ok::<(), std::convert::Infallible>(())
                };
                let Ok(new) = Ternary::pack(Packing::I2, outputs, inputs, Scales::One(*scale), on.pool, copy);
                *packed = new;
                bytes.set(on.cpu, on.pool, outputs, inputs, row);
            }
            Weight::Frozen(_) => {}
            Weight::Float { quantiser, share, rounded, turned } => {
                if quantiser.rounds() && !quantiser.round(on, w, inputs, room, rounded) {
                    return Err(NotFinite);
                }
                if *share < 1.0 {
                    on.blend(rounded, w, *share);
                }
                let w = if quantiser.rounds() { &rounded[..] } else { w };
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
    pub fn new(quantiser: Quantiser) -> Self {
        if quantiser.floats() {
            return Self::partly(quantiser, 1.0);
        }
        let empty =
            Ternary::pack(Packing::I2, 0, 4, Scales::One(1.0), &tern_kernels::Pool::new(1), |_, _| {
                Ok::<(), std::convert::Infallible>(())
            });
        let Ok(packed) = empty;
        Weight::Ternary { packed, bytes: ByteMatrix::default(), scale: 1.0 }
    }

    /// One that is rounded a share of the way, between `w` and `W~`.
    pub fn partly(quantiser: Quantiser, share: f32) -> Self {
        Weight::Float { quantiser, share, rounded: Vec::new(), turned: Vec::new() }
    }
}

/// The input of one or more matrices, kept from the forward pass to the backward pass.
#[derive(Debug)]
pub enum Input {
    /// Quantised.
    Codes(Activations),
    /// As they are: `(rows, inputs)`.
    Floats {
        /// The numbers.
        x: Vec<f32>,
        /// In a row.
        cols: usize,
        /// Of a model whose inputs become codes: how far on the way they are, and room for the codes.
        partly: Option<(f32, Activations)>,
    },
}

/// A number of the input or of a matrix was NaN or infinite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotFinite;

impl Input {
    /// Empty.
    pub fn new(quantiser: Quantiser) -> Self {
        if quantiser.floats() {
            Input::Floats { x: Vec::new(), cols: 0, partly: None }
        } else {
            Input::Codes(Activations::default())
        }
    }

    /// Empty, for numbers that are rounded a share of the way to codes, where this quantiser's models have codes.
    pub fn partly(quantiser: Quantiser, share: f32) -> Self {
        let codes = !quantiser.floats();
        Input::Floats { x: Vec::new(), cols: 0, partly: codes.then(|| (share, Activations::default())) }
    }

    /// Takes the rows of `x` in, each normed first where a norm is given. Floats are transformed, and not rounded.
    pub fn set(
        &mut self,
        on: Machine,
        intake: impl Into<Intake>,
        x: &[f32],
        cols: usize,
        norm: Option<Norm>,
    ) -> Result<(), NotFinite> {
        let intake = intake.into();
        match self {
            Input::Codes(codes) => codes.set(intake, on.cpu, on.pool, x, cols, norm).map_err(|_| NotFinite),
            Input::Floats { x: out, cols: width, partly } => {
                *width = cols;
                out.resize(x.len(), 0.0);
                on.pool.for_chunks(out, 8 * cols, |index, out| {
                    let x = &x[index * 8 * cols..][..out.len()];
                    match norm {
                        Some(Norm { weight, eps }) => rms_norm(on.cpu, x, weight, eps, out),
                        None => out.copy_from_slice(x),
                    }
                });
                on.hadamard(out, cols, intake.block);
                if let Some((share, codes)) = partly {
                    codes.set(intake, on.cpu, on.pool, x, cols, norm).map_err(|_| NotFinite)?;
                    let (share, codes) = (*share, &*codes);
                    on.pool.for_chunks(out, cols, |row, out| {
                        let step = codes.step(row);
                        for (x, code) in out.iter_mut().zip(codes.codes(row)) {
                            *x += share * (f32::from(*code) * step - *x);
                        }
                    });
                }
                Ok(())
            }
        }
    }

    /// Tokens in it.
    pub fn rows(&self) -> usize {
        match self {
            Input::Codes(codes) => codes.rows(),
            Input::Floats { x, cols, .. } => x.len().checked_div(*cols).unwrap_or(0),
        }
    }
}

/// `out = x~ W~ᵀ` for each of the matrices.
pub fn forward<const N: usize>(on: Machine, input: &mut Input, list: [(&Weight, &mut [f32]); N]) {
    match input {
        Input::Codes(codes) => {
            let list = list.map(|(weight, out)| match weight {
                Weight::Ternary { packed, .. } | Weight::Frozen(packed) => Product { matrix: packed, out },
                Weight::Float { .. } => unreachable!("codes meet trits only"),
            });
            products(on.cpu, on.pool, codes, list);
        }
        Input::Floats { x, cols, .. } => {
            for (weight, out) in list {
                let Weight::Float { turned, .. } = weight else { unreachable!("floats meet floats only") };
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
    /// Of the matrix of a base, for its backward product.
    trits: Vec<i8>,
    bytes: ByteMatrix,
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

    /// `dw = gᵀ x~` and `dx = g W~` (added to it with `add_dx`). `w` is the float matrix, for the twin. There is no `dw` of a
    /// matrix that is not trained.
    #[expect(clippy::too_many_arguments, reason = "an operation with two outputs")]
    pub fn backward(
        &mut self,
        on: Machine,
        input: &Input,
        weight: &Weight,
        w: &[f32],
        g: &[f32],
        dw: &mut [f32],
        dx: &mut [f32],
        add_dx: bool,
    ) {
        let Machine { cpu, pool } = on;
        match (input, weight) {
            (Input::Codes(codes), Weight::Ternary { bytes, scale, .. }) => {
                let outputs = dw.len() / codes.cols();
                self.digits.set_columns(cpu, pool, g, outputs, &self.steps);
                digit_product(cpu, pool, &self.digits, &self.codes, 1.0, dw, false);
                self.digits.set_rows(cpu, pool, g, outputs);
                digit_product(cpu, pool, &self.digits, bytes, *scale, dx, add_dx);
            }
            (Input::Codes(_), Weight::Frozen(packed)) => {
                let (outputs, inputs) = (packed.rows(), packed.cols());
                let Scales::One(scale) = packed.scales() else {
                    unreachable!("a base has one scale a matrix")
                };
                let Self { digits, trits, bytes, .. } = self;
                trits.resize(outputs * inputs, 0);
                pool.for_chunks(trits, inputs, |row, out| packed.unpack_row(row, out));
                bytes.set(cpu, pool, outputs, inputs, |row| &trits[row * inputs..][..inputs]);
                digits.set_rows(cpu, pool, g, outputs);
                digit_product(cpu, pool, digits, bytes, scale, dx, add_dx);
            }
            (Input::Floats { x, cols, .. }, Weight::Float { quantiser, rounded, .. }) => {
                let w = if quantiser.rounds() { &rounded[..] } else { w };
                let (g, x) = (Matrix::new(g, dw.len() / cols), Matrix::new(x, *cols));
                dense_product(cpu, pool, g.transposed(), x, dw, *cols, false);
                dense_product(cpu, pool, g, Matrix::new(w, *cols), dx, *cols, add_dx);
            }
            _ => unreachable!("codes meet trits only"),
        }
    }
}
