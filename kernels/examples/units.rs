//! What a feed-forward layer's matrices cost where units are left out: GB/s and the time against the whole product, from
//! memory, by the share of closed units.
//!
//! `cargo run --release -p tern-kernels --example units [THREADS] [SET]`

mod trits;

use std::time::Instant;

use tern_kernels::{Activations, ByColumn, ByRow, Cpu, Packing, Pool, Random, Scales, Ternary};

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let threads = args.get(1).map_or(1, |n| n.parse().expect("a number of threads"));
    let cpu = args.get(2).map_or(Cpu::best(), |name| Cpu::by_name(name).expect("a set of this machine"));
    let pool = Pool::new(threads);
    let (dim, hidden, layers) = (2560, 6912, 64);
    for packing in Packing::ALL {
        let ups: Vec<Ternary> =
            (0..layers).map(|_| trits::matrix(packing, hidden, dim, Scales::One(0.02), &pool)).collect();
        let downs: Vec<Ternary> =
            (0..layers).map(|_| trits::matrix(packing, dim, hidden, Scales::One(0.02), &pool)).collect();
        let start = Instant::now();
        let rows: Vec<ByRow> = ups.iter().map(|up| ByRow::of(&pool, up).expect("memory")).collect();
        let by_row = start.elapsed() / layers as u32;
        let start = Instant::now();
        let columns: Vec<ByColumn> =
            downs.iter().map(|down| ByColumn::of(cpu, &pool, down).expect("memory")).collect();
        let by_column = start.elapsed() / layers as u32;
        println!("{} {}: laid out in {by_row:.1?} and {by_column:.1?} a matrix", cpu.name(), packing.name());
        let mut random = Random(1);
        for closed in [0.0f32, 0.3, 0.5, 0.6, 0.7, 0.85, 0.95] {
            let mut gate: Vec<f32> = (0..hidden).map(|_| random.unit()).collect();
            gate.iter_mut().for_each(|x| *x = if *x < closed { 0.0 } else { *x });
            let (mut x, mut h) = (Activations::default(), Activations::default());
            let values: Vec<f32> = (0..dim).map(|_| random.unit() - 0.5).collect();
            x.quantise(cpu, &pool, &values, dim, None).expect("finite");
            h.quantise(cpu, &pool, &gate, hidden, None).expect("finite");
            let open = h.codes(0).iter().filter(|&&code| code != 0).count();
            let (mut up, mut down) = (vec![0.0; hidden], vec![0.0; dim]);
            let mut best = [f64::MAX; 4];
            for _ in 0..7 {
                let mut time = |which: usize, run: &mut dyn FnMut(usize)| {
                    let start = Instant::now();
                    (0..layers).for_each(&mut *run);
                    best[which] = best[which].min(start.elapsed().as_secs_f64() / layers as f64);
                };
                time(0, &mut |l| ups[l].matmul(cpu, &pool, &mut x, &mut up));
                time(1, &mut |l| rows[l].matmul(cpu, &pool, &x, |r| gate[r] > 0.0, &mut up));
                time(2, &mut |l| downs[l].matmul(cpu, &pool, &mut h, &mut down));
                time(3, &mut |l| columns[l].matmul(cpu, &pool, &h, &mut down));
            }
            let rate = |bytes: usize, nth: usize| bytes as f64 / best[nth] / 1e9;
            println!(
                "closed {closed:.2}: up {:.0} us at {:.1} GB/s, by row {:.0} us at {:.1}, {:.2} x; down {:.0} us at {:.1}, by column {:.0} us at {:.1}, {:.2} x",
                best[0] * 1e6,
                rate(ups[0].blocks().len(), 0),
                best[1] * 1e6,
                rate(rows[0].row_bytes() * open, 1),
                best[0] / best[1],
                best[2] * 1e6,
                rate(downs[0].blocks().len(), 2),
                best[3] * 1e6,
                rate(columns[0].column_bytes() * open, 3),
                best[2] / best[3],
            );
        }
    }
}
