//! How fast the products of training are on this machine, in 10⁹ multiply-adds a second:
//! `cargo run --release -p tern-kernels --example gradients`.

use std::time::Instant;

use tern_kernels::{
    Activations, ByteMatrix, Cpu, Digits, Matrix, Packing, Pool, Scales, Ternary, dense_product,
    dense_product_here, digit_product,
};

fn main() {
    let (rows, cols, tokens) = (1024, 384, 2048);
    let cpu = Cpu::best();
    let value = |i: usize| ((i * 7919 % 1013) as f32 - 506.0) / 512.0;
    for threads in [1, 2] {
        let pool = Pool::new(threads);
        let macs = (rows * cols * tokens) as f64;
        let time = |name: &str, work: &mut dyn FnMut()| {
            let best = (0..10).map(|_| {
                let start = Instant::now();
                work();
                start.elapsed().as_secs_f64()
            });
            let best = best.fold(f64::MAX, f64::min);
            println!("{threads} threads, {name}: {:.2} ms, {:.0}", best * 1e3, macs / best / 1e9);
        };
        let gradient: Vec<f32> = (0..tokens * rows).map(value).collect();
        let x: Vec<f32> = (0..tokens * cols).map(value).collect();
        let weights: Vec<f32> = (0..rows * cols).map(value).collect();
        let trits: Vec<i8> = (0..rows * cols).map(|i| (i * 37 % 3) as i8 - 1).collect();
        let factors = vec![1.0; tokens];
        let (mut y, mut dx, mut dw) =
            (vec![0.0; tokens * rows], vec![0.0; tokens * cols], vec![0.0; rows * cols]);

        let mut codes = Activations::default();
        time("quantise", &mut || codes.quantise(cpu, &pool, &x, cols, None).unwrap());
        let pack = || {
            let row = |r: usize, out: &mut [i8]| {
                out.copy_from_slice(&trits[r * cols..][..cols]);
                Ok::<(), ()>(())
            };
            Ternary::pack(Packing::I2, rows, cols, Scales::One(1.0), &pool, row).unwrap()
        };
        let mut packed = pack();
        time("pack weights", &mut || packed = pack());
        time("forward", &mut || packed.matmul(cpu, &pool, &mut codes, &mut y));

        let (mut digits, mut bytes) = (Digits::default(), ByteMatrix::default());
        time("trits to bytes", &mut || bytes.set(cpu, &pool, rows, cols, |r| &trits[r * cols..][..cols]));
        time("digits of rows", &mut || digits.set_rows(cpu, &pool, &gradient, rows));
        time("gradient of inputs", &mut || digit_product(cpu, &pool, &digits, &bytes, 1.0, &mut dx, false));
        time("codes to bytes", &mut || bytes.set_codes(cpu, &pool, &codes));
        time("digits of columns", &mut || digits.set_columns(cpu, &pool, &gradient, rows, &factors));
        time("gradient of weights", &mut || digit_product(cpu, &pool, &digits, &bytes, 1.0, &mut dw, false));

        let (small_a, small_b, mut small) = (vec![1f32; 96 * 128], vec![1f32; 128 * 64], vec![0f32; 96 * 64]);
        let times = rows * cols * tokens / (96 * 64 * 128) / threads;
        time("float, in cache", &mut || {
            pool.for_each(threads, |_| {
                let mut out = small.clone();
                for _ in 0..times {
                    let (a, b) = (Matrix::new(&small_a, 128), Matrix::new(&small_b, 64));
                    dense_product_here(cpu, a, b, &mut out, 64, true);
                }
            });
        });
        small[0] = 0.0;
        let (g, w, xs) = (Matrix::new(&gradient, rows), Matrix::new(&weights, cols), Matrix::new(&x, cols));
        time("float, g w", &mut || dense_product(cpu, &pool, g, w, &mut dx, cols, false));
        time("float, gt x", &mut || dense_product(cpu, &pool, g.transposed(), xs, &mut dw, cols, false));
    }
}
