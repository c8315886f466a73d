//! The output head: the screened product gives the same largest logits as the whole one, on every instruction set,
//! number of threads and batch, whatever the numbers.

use tern_kernels::{BadHead, Cpu, HeadInput, HeadScratch, OutputHead, Pool, Random, Wanted};

/// Numbers of several distributions.
struct Noise(Random);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0.unit()
    }

    /// A number of this kind of distribution.
    fn of(&mut self, kind: Kind) -> f32 {
        match kind {
            Kind::Uniform => self.next() - 0.5,
            Kind::Gaussian => (0..12).map(|_| self.next()).sum::<f32>() - 6.0,
            // A tail of 1 / x: some numbers are a thousand times the others.
            Kind::Heavy => (self.next() - 0.5) / (self.next() + 1e-4),
            Kind::Sparse => {
                if self.next() < 0.9 {
                    0.0
                } else {
                    self.next() - 0.5
                }
            }
            Kind::Signs => {
                if self.next() < 0.5 {
                    -1.0
                } else {
                    1.0
                }
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Uniform,
    Gaussian,
    Heavy,
    Sparse,
    Signs,
}

const KINDS: [Kind; 5] = [Kind::Uniform, Kind::Gaussian, Kind::Heavy, Kind::Sparse, Kind::Signs];

fn build(cpu: Cpu, rows: usize, cols: usize, weights: &[f32], threads: usize) -> OutputHead {
    OutputHead::build(cpu, &Pool::new(threads), rows, cols, |row, out| {
        out.copy_from_slice(&weights[row * cols..][..cols]);
        Ok::<(), ()>(())
    })
    .unwrap()
}

/// Logits `(vectors, rows)` and the rows computed.
fn product(head: &OutputHead, cpu: Cpu, threads: usize, x: &[f32], tops: &[usize]) -> (Vec<f32>, u64) {
    let mut input = HeadInput::default();
    input.quantise(cpu, x, head.cols()).unwrap();
    let mut out = vec![f32::NAN; tops.len() * head.rows()];
    let mut scratch = HeadScratch::default();
    head.product(cpu, &Pool::new(threads), &input, Wanted::of(tops), &mut scratch, &mut out);
    (out, scratch.computed())
}

/// Ids and bits of the k largest logits, the lower id first among equals.
fn largest(logits: &[f32], k: usize) -> Vec<(usize, u32)> {
    let mut all: Vec<_> = logits.iter().enumerate().collect();
    all.sort_by(|a, b| b.1.total_cmp(a.1).then(a.0.cmp(&b.0)));
    all.iter().take(k).map(|(id, logit)| (*id, logit.to_bits())).collect()
}

/// Screened and whole products agree; says how many rows were computed.
fn agree(head: &OutputHead, x: &[f32], tops: &[usize]) -> u64 {
    let rows = head.rows();
    let (whole, _) = product(head, Cpu::best(), 1, x, &vec![0; tops.len()]);
    let (screened, computed) = product(head, Cpu::best(), 2, x, tops);
    for (v, &k) in tops.iter().enumerate() {
        let (whole, screened) = (&whole[v * rows..][..rows], &screened[v * rows..][..rows]);
        let k = if k == 0 { rows } else { k };
        assert_eq!(largest(screened, k), largest(whole, k), "vector {v}, the {k} largest of {rows}");
        for (a, b) in screened.iter().zip(whole) {
            assert!(a.to_bits() == b.to_bits() || *a == f32::NEG_INFINITY, "{a} {b}");
        }
    }
    computed
}

/// The largest of the allowed rows are found, however few those are, and no other row is computed for them.
#[test]
fn the_largest_are_those_of_the_allowed_rows() {
    let (rows, cols) = (1003, 160);
    let mut noise = Noise(Random(5));
    let weights: Vec<f32> = (0..rows * cols).map(|_| noise.of(Kind::Gaussian)).collect();
    let head = build(Cpu::best(), rows, cols, &weights, 2);
    // Among them one that wants all, some that share a tile, and more than go through the head together.
    let tops: Vec<usize> = (0..37).map(|v| [1, 0, 2, 7, 40, 1, 1, 1, 1][v % 9]).collect();
    let x: Vec<f32> = (0..tops.len() * cols).map(|_| noise.of(Kind::Heavy)).collect();
    let words = rows.div_ceil(32);
    for share in [0u32, 1, 100, 900, 1000] {
        let mut random = 7u32;
        let mut allows = || {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (random >> 8) % 1000 < share
        };
        let allowed: Vec<u32> = (0..tops.len() * words)
            .map(|_| (0..32).fold(0, |word, bit| word | u32::from(allows()) << bit))
            .collect();
        let (whole, _) = product(&head, Cpu::best(), 1, &x, &vec![0; tops.len()]);
        for cpu in Cpu::available() {
            let mut input = HeadInput::default();
            input.quantise(cpu, &x, cols).unwrap();
            let mut out = vec![f32::NAN; tops.len() * rows];
            let wanted = Wanted { tops: &tops, allowed: &allowed };
            head.product(cpu, &Pool::new(2), &input, wanted, &mut HeadScratch::default(), &mut out);
            for (v, &k) in tops.iter().enumerate() {
                let may = |row: usize| k == 0 || allowed[v * words + row / 32] >> (row % 32) & 1 == 1;
                let whole: Vec<f32> = (0..rows)
                    .map(|row| if may(row) { whole[v * rows + row] } else { f32::NEG_INFINITY })
                    .collect();
                let out = &out[v * rows..][..rows];
                let k = if k == 0 { rows } else { k };
                assert_eq!(
                    largest(out, k),
                    largest(&whole, k),
                    "{share} of 1000 rows, vector {v}, the {k} largest"
                );
                assert!(
                    (0..rows).all(|row| may(row) || out[row] == f32::NEG_INFINITY),
                    "{share}, vector {v}"
                );
            }
        }
    }
}

/// The definition: codes rounded row by row, an exact sum, two multiplications in f64.
#[test]
fn logits_are_the_int8_sums() {
    let (rows, cols) = (21, 1037);
    let mut noise = Noise(Random(1));
    let weights: Vec<f32> = (0..rows * cols).map(|_| noise.of(Kind::Gaussian)).collect();
    let x: Vec<f32> = (0..cols).map(|_| noise.of(Kind::Heavy)).collect();
    let (got, computed) = product(&build(Cpu::best(), rows, cols, &weights, 1), Cpu::best(), 1, &x, &[0]);
    assert_eq!(computed, rows as u64);
    let absmax = |x: &[f32]| x.iter().fold(0f32, |top, x| top.max(x.abs()));
    let inputs = 32_512.0 / absmax(&x);
    for (row, got) in weights.chunks_exact(cols).zip(got) {
        let scale = 127.0 / absmax(row);
        let code = |x: f32, scale: f32| (x * scale).round_ties_even() as i64;
        let sum: i64 = row.iter().zip(&x).map(|(w, x)| code(*w, scale) * code(*x, inputs)).sum();
        let want = sum as f64 * (f64::from(1.0 / scale) * f64::from(1.0 / inputs));
        assert_eq!(got, want as f32);
        let float: f64 = row.iter().zip(&x).map(|(w, x)| f64::from(*w) * f64::from(*x)).sum();
        let norm = x.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!((want - float).abs() < f64::from(norm / scale), "{want} {float}");
    }
}

#[test]
fn sums_at_the_limit_do_not_overflow() {
    for cols in [512, 4096, 40_000] {
        for (w, x) in [(1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0)] {
            let head = build(Cpu::best(), 40, cols, &vec![w; 40 * cols], 1);
            for cpu in Cpu::available() {
                for tops in [0, 1] {
                    let (got, _) = product(&head, cpu, 1, &vec![x; cols], &[tops]);
                    let want = w * x * cols as f32;
                    assert!((got[0] - want).abs() < want.abs() * 1e-6, "{} {want}", got[0]);
                }
            }
        }
    }
}

#[test]
fn instruction_sets_threads_and_company_do_not_change_a_bit() {
    for (rows, cols) in [(1000, 96), (530, 1000), (33, 40)] {
        let mut noise = Noise(Random(rows as u64));
        let weights: Vec<f32> = (0..rows * cols).map(|_| noise.of(Kind::Uniform)).collect();
        let x: Vec<f32> = (0..37 * cols).map(|_| noise.of(Kind::Gaussian)).collect();
        let tops: Vec<usize> = (0..37).map(|v| [1, 0, 2, 7][v % 4]).collect();
        let (want, _) = product(&build(Cpu::best(), rows, cols, &weights, 1), Cpu::best(), 1, &x, &tops);
        let want: Vec<u32> = want.iter().map(|v| v.to_bits()).collect();
        for cpu in Cpu::available() {
            for threads in [1, 2, 3] {
                let head = build(cpu, rows, cols, &weights, threads);
                let (got, _) = product(&head, cpu, threads, &x, &tops);
                assert!(got.iter().map(|v| v.to_bits()).eq(want.iter().copied()), "{} {threads}", cpu.name());
            }
        }
        let head = build(Cpu::best(), rows, cols, &weights, 1);
        for v in 0..37 {
            let (got, _) = product(&head, Cpu::best(), 1, &x[v * cols..][..cols], &tops[v..=v]);
            assert!(
                got.iter().map(|v| v.to_bits()).eq(want[v * rows..][..rows].iter().copied()),
                "vector {v}"
            );
        }
    }
}

#[test]
fn many_hidden_states_have_the_logits_of_each_alone() {
    for (rows, cols, states) in [(1000, 96, 12), (70, 1000, 13), (33, 40, 40), (5, 132_000, 12)] {
        let mut noise = Noise(Random(cols as u64));
        let weights: Vec<f32> = (0..rows * cols).map(|_| noise.of(Kind::Uniform)).collect();
        let x: Vec<f32> = (0..states * cols).map(|_| noise.of(Kind::Heavy)).collect();
        let head = build(Cpu::best(), rows, cols, &weights, 1);
        let alone: Vec<f32> =
            x.chunks_exact(cols).flat_map(|x| product(&head, Cpu::best(), 1, x, &[0]).0).collect();
        for cpu in Cpu::available() {
            for threads in [1, 3] {
                let (got, computed) = product(&head, cpu, threads, &x, &vec![0; states]);
                assert!(got == alone, "{rows} {cols} {states} {} {threads}", cpu.name());
                assert_eq!(computed % rows as u64, 0);
            }
        }
    }
    // The largest sums there are.
    let cols = 1 << 17;
    let head = build(Cpu::best(), 3, cols, &vec![-1.0; 3 * cols], 1);
    for cpu in Cpu::available() {
        let (got, _) = product(&head, cpu, 1, &vec![-1.0; 12 * cols], &[0; 12]);
        assert!(got.iter().all(|logit| (logit - cols as f32).abs() < 1.0), "{}", cpu.name());
    }
}

#[test]
fn rows_and_inputs_of_every_kind_agree() {
    let (rows, cols) = (4000, 320);
    for weights_kind in KINDS {
        let mut noise = Noise(Random(3));
        let weights: Vec<f32> = (0..rows * cols).map(|_| noise.of(weights_kind)).collect();
        let head = build(Cpu::best(), rows, cols, &weights, 2);
        for x_kind in KINDS {
            for k in [1, 2, 40, 200] {
                let x: Vec<f32> = (0..4 * cols).map(|_| noise.of(x_kind)).collect();
                agree(&head, &x, &[k; 4]);
            }
        }
        // One column alone, and nothing at all: every logit a tie.
        let mut x = vec![0f32; cols];
        agree(&head, &x, &[1]);
        x[7] = 3.0;
        agree(&head, &x, &[5]);
    }
}

#[test]
fn equal_rows_go_by_their_ids() {
    let (rows, cols) = (2048, 64);
    let mut noise = Noise(Random(9));
    let pattern: Vec<f32> = (0..3 * cols).map(|_| noise.of(Kind::Gaussian)).collect();
    let weights: Vec<f32> =
        (0..rows).flat_map(|row| &pattern[row * 7 % 3 * cols..][..cols]).copied().collect();
    let head = build(Cpu::best(), rows, cols, &weights, 1);
    for _ in 0..20 {
        let x: Vec<f32> = (0..cols).map(|_| noise.of(Kind::Gaussian)).collect();
        agree(&head, &x, &[1]);
        agree(&head, &x, &[100]);
    }
    agree(&build(Cpu::best(), rows, cols, &vec![0.0; rows * cols], 1), &pattern[..cols], &[3]);
}

/// A head like a trained one: one row fits the input, the others do not.
#[test]
fn few_rows_are_computed_where_one_stands_out() {
    let (rows, cols) = (8192, 1024);
    let mut noise = Noise(Random(5));
    let weights: Vec<f32> = (0..rows * cols).map(|_| noise.of(Kind::Gaussian)).collect();
    let head = build(Cpu::best(), rows, cols, &weights, 2);
    for row in [0, 4097, 8191] {
        let x: Vec<f32> =
            weights[row * cols..][..cols].iter().map(|w| w * 0.3 + noise.of(Kind::Gaussian)).collect();
        let computed = agree(&head, &x, &[1]);
        assert!(computed < 20, "{computed} rows");
    }
}

/// The 200 largest of 4096 Gaussian logits: nearly every row reaches the floor, and the screen rests for a while.
#[test]
fn a_useless_screen_is_left_alone() {
    let (rows, cols) = (4096, 512);
    let mut noise = Noise(Random(11));
    let weights: Vec<f32> = (0..rows * cols).map(|_| noise.of(Kind::Gaussian)).collect();
    let head = build(Cpu::best(), rows, cols, &weights, 1);
    let (pool, mut scratch, mut input) = (Pool::new(1), HeadScratch::default(), HeadInput::default());
    let mut out = vec![0f32; rows];
    for round in 0..70 {
        let x: Vec<f32> = (0..cols).map(|_| noise.of(Kind::Gaussian)).collect();
        input.quantise(Cpu::best(), &x, cols).unwrap();
        head.product(Cpu::best(), &pool, &input, Wanted::of(&[200]), &mut scratch, &mut out);
        let (whole, _) = product(&head, Cpu::best(), 1, &x, &[0]);
        assert_eq!(largest(&out, 200), largest(&whole, 200));
        let screened = round % 32 == 0;
        assert_eq!(scratch.bytes() > head.int8_bytes(), screened, "{round}: {} bytes", scratch.bytes());
    }
}

#[test]
fn a_broken_row_is_named() {
    for bad in [f32::NAN, f32::INFINITY] {
        let built = OutputHead::build(Cpu::best(), &Pool::new(1), 40, 8, |row, out| {
            out.fill(if row == 33 { bad } else { 1.0 });
            Ok::<(), ()>(())
        });
        assert_eq!(built.unwrap_err(), BadHead::NotFinite(33));
    }
    let built =
        OutputHead::build(
            Cpu::best(),
            &Pool::new(2),
            40,
            8,
            |row, _| if row == 3 { Err(row) } else { Ok(()) },
        );
    assert_eq!(built.unwrap_err(), BadHead::Row(3));
}

/// Not in WebAssembly, where proptest finds no random numbers.
#[cfg(not(target_family = "wasm"))]
mod shapes {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_shape_agrees(
            rows in 1usize..700, cols in 1usize..300, kinds in (0usize..5, 0usize..5),
            tops in proptest::collection::vec(0usize..40, 1..6), repeats in 1usize..4, seed: u64,
        ) {
            let mut noise = Noise(Random(seed));
            let mut weights: Vec<f32> = (0..rows.div_ceil(repeats) * cols).map(|_| noise.of(KINDS[kinds.0])).collect();
            weights = weights.repeat(repeats);
            weights.truncate(rows * cols);
            let x: Vec<f32> = (0..tops.len() * cols).map(|_| noise.of(KINDS[kinds.1])).collect();
            agree(&build(Cpu::best(), rows, cols, &weights, 2), &x, &tops);
        }
    }
}
