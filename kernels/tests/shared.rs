//! The smallest run of everything that hands parts of one array to several threads. Other tests compare far more numbers;
//! these are small enough for Miri (`make miri`), which sees parts that overlap and memory that is used after its time.

use tern_kernels::{
    Activation, Activations, Attention, ByteMatrix, Cache, Cpu, Digits, HeadInput, HeadScratch, Heads,
    KvFormat, Matrix, OutputHead, Packing, Pairing, Place, Pool, Product, Rows, Scales, Ternary, Wanted,
    dense_product, digit_product, gate, products,
};

fn values(len: usize) -> Vec<f32> {
    (0..len).map(|i| (i * 7919 % 101) as f32 / 50.0 - 1.0).collect()
}

fn pack(packing: Packing, pool: &Pool, rows: usize, cols: usize) -> Ternary {
    Ternary::pack(packing, rows, cols, Scales::One(0.5), pool, |row, out| {
        out.iter_mut().enumerate().for_each(|(col, trit)| *trit = ((row + 2 * col) % 3) as i8 - 1);
        Ok::<(), ()>(())
    })
    .unwrap()
}

/// The same on one thread and on three.
fn same<T: PartialEq + std::fmt::Debug>(run: impl Fn(&Pool) -> T) {
    let [alone, three] = [1, 3].map(|threads| run(&Pool::new(threads)));
    assert_eq!(alone, three);
}

#[test]
fn products_of_one_input() {
    for packing in Packing::ALL {
        for tokens in [1, 3] {
            same(|pool| {
                let matrices = [pack(packing, pool, 130, 21), pack(packing, pool, 17, 21)];
                let mut x = Activations::default();
                x.quantise(Cpu::best(), pool, &values(tokens * 21), 21, None).unwrap();
                let (mut a, mut b) = (vec![0.0; tokens * 130], vec![0.0; tokens * 17]);
                let [first, second] = &matrices;
                let both = [Product { matrix: first, out: &mut a }, Product { matrix: second, out: &mut b }];
                products(Cpu::best(), pool, &mut x, both);
                gate(Cpu::best(), Activation::Relu2, &mut a, &values(tokens * 130));
                (a, b)
            });
        }
    }
}

#[test]
fn attention_over_two_sequences() {
    let heads = Heads { query: 4, kv: 2, dim: 4, pairing: Pairing::Halves };
    for format in KvFormat::ALL {
        same(|pool| {
            // A prompt of its own heads on every thread, and one row that is appended beside it.
            let places: Vec<Place> = (0..18)
                .map(|position| Place { sequence: 0, position })
                .chain([Place { sequence: 1, position: 0 }])
                .collect();
            let n = places.len();
            let (mut q, mut out) = (values(n * 16), vec![0.0; n * 16]);
            let (k, v, angles) = (values(n * 8), values(n * 8), values(n * 4));
            let mut caches = [(); 2].map(|()| Cache::new(format, 1, heads.kv, heads.dim));
            caches.iter_mut().for_each(|cache| cache.reserve(0, 18).unwrap());
            let mut attention = Attention::default();
            attention.plan(heads, format, pool.threads(), places.into_iter());
            let rows = Rows { q: &mut q, k: &k, v: &v, angles: &angles, out: &mut out, window: usize::MAX };
            attention.run(Cpu::best(), pool, 0, rows, &mut caches).unwrap();
            out
        });
    }
}

#[test]
fn the_output_head() {
    let (rows, cols) = (100, 12);
    let weights = values(rows * cols);
    for tops in [vec![0], vec![3, 1], vec![0; 16]] {
        same(|pool| {
            let head = OutputHead::build(Cpu::best(), pool, rows, cols, |row, out| {
                out.copy_from_slice(&weights[row * cols..][..cols]);
                Ok::<(), ()>(())
            })
            .unwrap();
            let mut input = HeadInput::default();
            input.quantise(Cpu::best(), &values(tops.len() * cols), cols).unwrap();
            let mut out = vec![0.0; tops.len() * rows];
            let wanted = Wanted::of(&tops);
            head.product(Cpu::best(), pool, &input, wanted, &mut HeadScratch::default(), &mut out);
            // Which others are computed beside those wanted may depend on the threads.
            let mut largest = Vec::new();
            for (logits, &top) in out.chunks(rows).zip(&tops) {
                let mut logits = logits.to_vec();
                logits.sort_by(|a, b| b.total_cmp(a));
                logits.truncate(if top == 0 { rows } else { top });
                largest.push(logits);
            }
            largest
        });
    }
}

#[test]
fn products_of_training() {
    same(|pool| {
        let (a, b) = (values(13 * 7), values(7 * 70));
        let mut dense = vec![1.0; 13 * 72];
        dense_product(Cpu::best(), pool, Matrix::new(&a, 7), Matrix::new(&b, 70), &mut dense, 72, true);
        let (mut digits, mut bytes) = (Digits::default(), ByteMatrix::default());
        let trits: Vec<i8> = (0..7 * 40).map(|i| (i % 3) as i8 - 1).collect();
        digits.set_rows(Cpu::best(), pool, &a, 7);
        bytes.set(Cpu::best(), pool, 7, 40, |row| &trits[row * 40..][..40]);
        let mut exact = vec![0.0; 13 * 40];
        digit_product(Cpu::best(), pool, &digits, &bytes, 1.0, &mut exact, false);
        (dense, exact)
    });
}
