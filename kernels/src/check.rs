//! Every kernel of an instruction set against its definition: bit for bit, on odd shapes and on the values that overflow if
//! anything does. `tern doctor` runs it on a person's machine, the tests of this crate on every set they can reach.

use crate::{
    Activation, Activations, Attention, Cache, Cpu, FloatFormat, Heads, KvFormat, Packing, Pairing, Place,
    Pool, Random, Rounding, Rows, Scales, Ternary, dots, gate, half, rms_norm,
};

/// One thing that was checked.
#[derive(Clone, Debug)]
pub struct Check {
    /// What it was: `avx2 i2 products`.
    pub name: String,
    /// How much was compared, or what was wrong.
    pub result: Result<String, String>,
}

/// Checks the kernels of an instruction set, one kind after the other as the iterator goes on.
///
/// ```
/// use tern_kernels::{Cpu, Pool, check};
///
/// for check in check::kernels(Cpu::best(), &Pool::new(2)) {
///     assert!(check.result.is_ok(), "{check:?}");
/// }
/// ```
pub fn kernels(cpu: Cpu, pool: &Pool) -> impl Iterator<Item = Check> {
    let products = Packing::ALL.into_iter().map(move |packing| Check {
        name: format!("{} {} products", cpu.name(), packing.name()),
        result: products(cpu, packing, pool),
    });
    let floats =
        std::iter::once_with(move || Check { name: format!("{} floats", cpu.name()), result: floats(cpu) });
    products.chain(floats)
}

/// Rows and columns: one, one block of either packing (16 and 20 columns), one more, primes, and one long row.
const SHAPES: [(usize, usize); 9] =
    [(1, 1), (3, 2), (16, 16), (16, 20), (17, 21), (31, 127), (64, 160), (67, 641), (2, 8209)];
/// Rows of activations at a time: every tile width and its rest.
const BATCHES: [usize; 4] = [1, 2, 5, 9];

/// As many as go by tiles where a set has them, with a rest; of random numbers only, since the definition takes its time.
const MANY: usize = 35;

/// What fills a matrix and its activations.
#[derive(Clone, Copy)]
enum Fill {
    Random,
    /// Weights 1 or -1 all over against activations at the end of their range: the largest sums.
    Largest(i8, f32),
    Zeros,
}

const FILLS: [Fill; 5] =
    [Fill::Random, Fill::Largest(1, 1.0), Fill::Largest(-1, 1.0), Fill::Largest(1, -1.0), Fill::Zeros];

/// Numbers as kernels meet them.
impl Random {
    fn trit(&mut self) -> i8 {
        (self.bits() % 3) as i8 - 1
    }
    /// Around zero, over a few orders of magnitude.
    fn float(&mut self) -> f32 {
        let unit = self.unit() - 0.5;
        unit * [0.01, 1.0, 30.0][(self.bits() % 3) as usize]
    }
    fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.float()).collect()
    }
}

/// Ternary products with all kinds of scales, on one thread and on all.
fn products(cpu: Cpu, packing: Packing, pool: &Pool) -> Result<String, String> {
    let scalar = Cpu::by_name("scalar").expect("the scalar set is always there");
    let alone = Pool::new(1);
    let mut random = Random(1);
    let mut compared = 0;
    for (rows, cols) in SHAPES {
        for fill in FILLS {
            let trits: Vec<i8> = (0..rows * cols)
                .map(|_| match fill {
                    Fill::Random => random.trit(),
                    Fill::Largest(trit, _) => trit,
                    Fill::Zeros => 0,
                })
                .collect();
            for scales in scales(rows, cols, &mut random) {
                let shape = format!("{rows} rows of {cols}");
                let defined_by = scales.clone();
                let matrix = Ternary::pack(packing, rows, cols, scales, pool, |row, out| {
                    out.copy_from_slice(&trits[row * cols..][..cols]);
                    Ok::<(), String>(())
                })?;
                let mut back = vec![0; cols];
                for row in 0..rows {
                    matrix.unpack_row(row, &mut back);
                    if back != trits[row * cols..][..cols] {
                        return Err(format!("{shape}: row {row} does not unpack to what was packed"));
                    }
                }
                let many = matches!(fill, Fill::Random).then_some(MANY);
                for batch in BATCHES.into_iter().chain(many) {
                    let x: Vec<f32> = match fill {
                        Fill::Largest(_, x) => vec![x; batch * cols],
                        _ => random.floats(batch * cols),
                    };
                    let product = |cpu: Cpu, pool: &Pool| {
                        let mut quantised = Activations::default();
                        quantised
                            .quantise(cpu, pool, &x, cols, None)
                            .map_err(|_| "finite numbers were called not finite")?;
                        let mut y = vec![f32::NAN; batch * rows];
                        matrix.matmul(cpu, pool, &mut quantised, &mut y);
                        Ok::<_, String>((quantised, y))
                    };
                    let (quantised, expected) = product(scalar, &alone)?;
                    // The scalar set is held against the definition, every other one against the scalar set.
                    if cpu == scalar {
                        let defined = definition(&trits, rows, &defined_by, &quantised);
                        same(&format!("{shape}, batch {batch}"), &defined, &expected)?;
                    } else {
                        same(&format!("{shape}, batch {batch}"), &expected, &product(cpu, &alone)?.1)?;
                    }
                    same(&format!("{shape}, batch {batch}, all threads"), &expected, &product(cpu, pool)?.1)?;
                    compared += 2 * expected.len();
                }
            }
        }
    }
    Ok(format!("{compared} sums equal"))
}

/// One scale, one a row, and one a group.
fn scales(rows: usize, cols: usize, random: &mut Random) -> Vec<Scales> {
    let mut list = |size: usize| Scales::Groups {
        size,
        values: (0..rows * cols.div_ceil(size)).map(|_| random.float().abs()).collect(),
    };
    vec![Scales::One(0.73), list(cols), list(64)]
}

/// The product as it is defined, `(x.rows(), rows)`: exact integer sums of the columns between borders of scales, each times its
/// scale and, with activations by group, its step, added in their order; with one step a row, times that at the end.
pub fn definition(trits: &[i8], rows: usize, scales: &Scales, x: &Activations) -> Vec<f32> {
    let cols = x.cols();
    let size = match scales {
        Scales::One(_) => cols,
        Scales::Groups { size, .. } => *size,
    };
    let by_group = x.rounding() == Rounding::Group;
    let is_border = |col: &usize| col.is_multiple_of(size) || by_group && col.is_multiple_of(128);
    let starts: Vec<usize> = (0..cols).filter(is_border).collect();
    let mut y = Vec::with_capacity(x.rows() * rows);
    for t in 0..x.rows() {
        for (row, trits) in trits.chunks_exact(cols).take(rows).enumerate() {
            let mut total = 0.0;
            for (nth, &start) in starts.iter().enumerate() {
                let columns = start..starts.get(nth + 1).copied().unwrap_or(cols);
                let products = columns.map(|col| i64::from(trits[col]) * i64::from(x.codes(t)[col]));
                let scaled = products.sum::<i64>() as f32 * scales.at(row, start, cols);
                total += if by_group { scaled * x.step_at(t, start) } else { scaled };
            }
            y.push(if by_group { total } else { total * x.step(t) });
        }
    }
    y
}

/// Norms, float products, activations and attention.
fn floats(cpu: Cpu) -> Result<String, String> {
    let scalar = Cpu::by_name("scalar").expect("the scalar set is always there");
    let mut random = Random(2);
    let mut compared = 0;
    let mut check = |what: &str, n: usize, run: &dyn Fn(Cpu) -> Vec<f32>| {
        let expected = run(scalar);
        compared += expected.len();
        same(&format!("{what} of {n}"), &expected, &run(cpu))
    };
    for n in [1, 2, 15, 16, 17, 100, 641] {
        let (x, weight) = (random.floats(3 * n), random.floats(n));
        check("norm", n, &|cpu| {
            let mut y = vec![0.0; x.len()];
            rms_norm(cpu, &x, &weight, 1e-5, &mut y);
            y
        })?;
        for activation in [Activation::Relu2, Activation::Silu, Activation::GeluTanh] {
            check("gate", n, &|cpu| {
                let mut y = x.clone();
                gate(cpu, activation, &mut y, &x);
                y
            })?;
        }
        for format in [FloatFormat::F32, FloatFormat::F16, FloatFormat::Bf16] {
            let rows: Vec<u8> = x.iter().flat_map(|&x| stored(format, x)).collect();
            check("float product", n, &|cpu| {
                let mut y = vec![0.0; 3];
                dots(cpu, format, &rows, &weight, &mut y);
                y
            })?;
        }
    }
    for dim in [2, 16, 18, 128] {
        for format in KvFormat::ALL {
            let heads = Heads { query: 4, kv: 2, dim, pairing: Pairing::Halves };
            let positions = 300;
            let input = random.floats(positions * dim * 9);
            check("attention", dim, &|cpu| attention(cpu, format, heads, positions, &input))?;
        }
    }
    Ok(format!("{compared} numbers equal"))
}

/// All positions of a sequence at once; `input` holds the projections and the angles.
fn attention(cpu: Cpu, format: KvFormat, heads: Heads, positions: usize, input: &[f32]) -> Vec<f32> {
    let (q, rest) = input.split_at(positions * heads.query * heads.dim);
    let (k, rest) = rest.split_at(positions * heads.kv * heads.dim);
    let (v, angles) = rest.split_at(k.len());
    let (mut q, mut out) = (q.to_vec(), vec![0.0; q.len()]);
    let mut cache = Cache::new(format, 1, heads.kv, heads.dim);
    cache.reserve(0, positions).expect("memory for some hundred positions");
    let mut attention = Attention::default();
    attention.plan(heads, format, 1, (0..positions).map(|position| Place { sequence: 0, position }));
    let rows = Rows { q: &mut q, k, v, angles, out: &mut out, window: usize::MAX };
    attention.run(cpu, &Pool::new(1), 0, rows, &mut [cache]).expect("finite keys and values");
    out
}

/// One number as bytes of a format.
fn stored(format: FloatFormat, x: f32) -> Vec<u8> {
    match format {
        FloatFormat::F32 => x.to_le_bytes().to_vec(),
        FloatFormat::F16 => half::f32_to_f16(x).to_le_bytes().to_vec(),
        FloatFormat::Bf16 => half::f32_to_bf16(x).to_le_bytes().to_vec(),
    }
}

/// Every bit the same, the sign of a zero too.
fn same(what: &str, expected: &[f32], found: &[f32]) -> Result<(), String> {
    match expected.iter().zip(found).position(|(a, b)| a.to_bits() != b.to_bits()) {
        Some(at) => Err(format!("{what}: element {at}: expected {}, found {}", expected[at], found[at])),
        None => Ok(()),
    }
}
