//! Attention against its definition in f64, and against itself however the work is cut.

use tern_kernels::half::{f16_to_f32, f32_to_f16};
use tern_kernels::{
    Attention, Cache, ChunkCount, Cpu, Heads, Kept, KvFormat, Pairing, Place, Pool, Random, Rows, Unstorable,
};

/// Projections of one sequence.
#[derive(Clone)]
struct Input {
    heads: Heads,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    angles: Vec<f32>,
    window: usize,
}

/// Numbers around zero.
fn floats(random: &mut Random, n: usize, size: f32) -> Vec<f32> {
    (0..n).map(|_| (2.0 * random.unit() - 1.0) * size).collect()
}

impl Input {
    fn random(heads: Heads, positions: usize, seed: u64) -> Self {
        let mut random = Random(seed);
        let Heads { query, kv, dim, .. } = heads;
        let turn = |i: usize| {
            let (position, j) = (i / dim, i % dim);
            let angle = position as f64 * 0.3f64.powi((j % (dim / 2)) as i32);
            (if j < dim / 2 { angle.cos() } else { angle.sin() }) as f32
        };
        Self {
            heads,
            q: floats(&mut random, positions * query * dim, 3.0),
            k: floats(&mut random, positions * kv * dim, 2.0),
            v: floats(&mut random, positions * kv * dim, 1.5),
            angles: (0..positions * dim).map(turn).collect(),
            window: usize::MAX,
        }
    }

    fn positions(&self) -> usize {
        self.angles.len() / self.heads.dim
    }

    fn cache(&self, format: KvFormat) -> Cache {
        let mut cache = Cache::new(format, LAYERS, self.heads.kv, self.heads.dim);
        cache.reserve(0, self.positions()).unwrap();
        cache
    }
}

/// The layer under test has neighbours that must not be touched.
const LAYERS: usize = 3;
const LAYER: usize = 1;

struct Machine {
    cpu: Cpu,
    pool: Pool,
    format: KvFormat,
}

impl Machine {
    fn new(cpu: Cpu, threads: usize, format: KvFormat) -> Self {
        Self { cpu, pool: Pool::new(threads), format }
    }

    /// Takes `rows` (sequence, position) through attention.
    fn step(
        &self,
        attention: &mut Attention,
        inputs: &[Input],
        texts: &mut [Cache],
        rows: &[(usize, usize)],
    ) -> Result<Vec<f32>, Unstorable> {
        let heads = inputs[0].heads;
        let Heads { query, kv, dim, .. } = heads;
        let take = |values: fn(&Input) -> &[f32], width: usize| -> Vec<f32> {
            rows.iter().flat_map(|&(s, p)| values(&inputs[s])[p * width..][..width].to_vec()).collect()
        };
        let mut q = take(|input| &input.q, query * dim);
        let (k, v) = (take(|input| &input.k, kv * dim), take(|input| &input.v, kv * dim));
        let angles = take(|input| &input.angles, dim);
        let mut out = vec![f32::NAN; q.len()];
        let places = rows.iter().map(|&(sequence, position)| Place { sequence, position });
        attention.plan(heads, self.format, self.pool.threads(), places);
        let layer =
            Rows { q: &mut q, k: &k, v: &v, angles: &angles, out: &mut out, window: inputs[0].window };
        attention.run(self.cpu, &self.pool, LAYER, layer, texts)?;
        Ok(out)
    }

    /// One sequence in pieces of `piece` positions.
    fn alone(&self, input: &Input, piece: usize) -> Vec<f32> {
        let (mut attention, mut texts) = (Attention::default(), [input.cache(self.format)]);
        let positions: Vec<(usize, usize)> = (0..input.positions()).map(|position| (0, position)).collect();
        let inputs = std::slice::from_ref(input);
        positions
            .chunks(piece)
            .flat_map(|rows| self.step(&mut attention, inputs, &mut texts, rows).unwrap())
            .collect()
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Other processors than the one at hand are emulated here, slowly: the widest shapes and the most of what is repeated are left to
/// the real one.
const EMULATED: bool = !cfg!(target_arch = "x86_64");

/// Every format, and some whose keys and values are kept apart.
fn formats() -> Vec<KvFormat> {
    let apart = ["q4:q3", "f16:q4", "q8:q4", "q3:f32", "int8:q3", "q4:int8"];
    let apart = &apart[..if EMULATED { 2 } else { 6 }];
    KvFormat::ALL.into_iter().chain(apart.iter().map(|name| KvFormat::from_name(name).unwrap())).collect()
}

/// A Hadamard transform over blocks of the largest power of two that divides the row.
fn hadamard(row: &[f32]) -> Vec<f32> {
    let n = 1usize << row.len().trailing_zeros();
    let mut out = row.to_vec();
    let mut step = 1;
    while step < n {
        out = (0..row.len())
            .map(|i| if i & step == 0 { out[i] + out[i + step] } else { out[i - step] - out[i] })
            .collect();
        step *= 2;
    }
    let norm = 1.0 / (n as f32).sqrt();
    out.iter().map(|x| x * norm).collect()
}

/// Codes under one f16 scale for every 128 values: by that of the largest magnitude it becomes the lowest code; codes of few bits
/// take a smaller scale where the squared error is less.
fn grouped(bits: u32, row: &[f32]) -> Vec<f32> {
    let levels = (1 << (bits - 1)) as f32;
    let factors: &[f32] = if bits == 8 { &[1.0] } else { &[1.0, 0.9, 0.8] };
    row.chunks(128)
        .flat_map(|group| {
            let extreme = group.iter().fold(0f32, |top, &x| {
                if x.abs() > top.abs() || x.abs() == top.abs() && x < top { x } else { top }
            });
            let by = |factor: &f32| -> Vec<f32> {
                let scale = f16_to_f32(f32_to_f16(extreme * factor / -levels));
                let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
                let level = |x: &f32| (x * inverse).clamp(-levels, levels - 1.0).round_ties_even();
                group.iter().map(|x| level(x) * scale).collect()
            };
            let off = |values: &Vec<f32>| -> f64 {
                values.iter().zip(group).map(|(a, b)| f64::from(a - b).powi(2)).sum()
            };
            let all = factors.iter().map(by);
            all.min_by(|a, b| off(a).total_cmp(&off(b))).expect("a factor")
        })
        .collect()
}

/// What a cache makes of a row, the first of the text or another.
fn stored(kept: Kept, first: bool, row: &[f32]) -> Vec<f32> {
    match kept {
        Kept::F32 => row.to_vec(),
        Kept::F16 => row.iter().map(|&x| f16_to_f32(f32_to_f16(x))).collect(),
        Kept::Int8 => {
            let top = row.iter().fold(0f32, |top, x| top.max(x.abs())).max(1e-30);
            row.iter().map(|&x| (x * (127.0 / top)).round_ties_even() * (top / 127.0)).collect()
        }
        Kept::Q8 => hadamard(&grouped(8, &hadamard(row))),
        Kept::Q4 => hadamard(&grouped(if first { 8 } else { 4 }, &hadamard(row))),
        Kept::Q3 => hadamard(&grouped(if first { 8 } else { 3 }, &hadamard(row))),
    }
}

/// A query as keys of few bits are multiplied with it: in 8 bits.
fn asked(kept: Kept, query: &[f32]) -> Vec<f32> {
    if !matches!(kept, Kept::Q4 | Kept::Q3) {
        return query.to_vec();
    }
    let query = hadamard(query);
    let top = query.iter().fold(0f32, |top, x| top.max(x.abs())).max(1e-30);
    hadamard(&query.iter().map(|x| (x * (127.0 / top)).round_ties_even() * (top / 127.0)).collect::<Vec<_>>())
}

fn rotated(heads: Heads, angles: &[f32], head: &[f32]) -> Vec<f32> {
    let half = heads.dim / 2;
    let mut out = head.to_vec();
    for j in 0..half {
        let (a, b) = match heads.pairing {
            Pairing::Halves => (j, j + half),
            Pairing::Neighbours => (2 * j, 2 * j + 1),
        };
        let (cosine, sine) = (angles[j], angles[j + half]);
        (out[a], out[b]) = (head[a] * cosine - head[b] * sine, head[b] * cosine + head[a] * sine);
    }
    out
}

/// Softmax attention in f64 over what the cache holds.
fn definition(format: KvFormat, input: &Input, position: usize) -> Vec<f64> {
    let Heads { query, kv, dim, .. } = input.heads;
    let mut out = Vec::new();
    for head in 0..query {
        let group = head / (query / kv);
        let row = |values: &[f32], p: usize| values[(p * kv + group) * dim..][..dim].to_vec();
        let q = rotated(
            input.heads,
            &input.angles[position * dim..][..dim],
            &input.q[(position * query + head) * dim..][..dim],
        );
        let rounded = asked(format.keys, &q);
        let first = (position + 1).saturating_sub(input.window);
        let scores: Vec<f64> = (first..=position)
            .map(|p| {
                let k = rotated(input.heads, &input.angles[p * dim..][..dim], &row(&input.k, p));
                let k = stored(format.keys, p == 0, &k);
                // The first token's key is multiplied with the query as it is.
                let q = if p == 0 { &q } else { &rounded };
                let dot: f64 = q.iter().zip(&k).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                dot / (dim as f64).sqrt()
            })
            .collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let total: f64 = scores.iter().map(|score| (score - top).exp()).sum();
        let mut mean = vec![0f64; dim];
        for (p, score) in (first..).zip(&scores) {
            let v = stored(format.values, p == 0, &row(&input.v, p));
            mean.iter_mut().zip(&v).for_each(|(m, v)| *m += (score - top).exp() / total * f64::from(*v));
        }
        out.extend(mean);
    }
    out
}

/// Heads of every kind of width and sharing.
const SHAPES: [(usize, usize, usize); 9] = [
    (1, 1, 2),
    (4, 2, 8),
    (3, 1, 10),
    (6, 3, 18),
    (20, 5, 64),
    (8, 2, 128),
    (40, 2, 36),
    (2, 1, 256),
    (6, 3, 202),
];

#[test]
fn attention_equals_its_definition() {
    for (index, (query, kv, dim)) in SHAPES.into_iter().enumerate() {
        if EMULATED && query * dim > 512 {
            continue;
        }
        let pairing = if index % 2 == 0 { Pairing::Halves } else { Pairing::Neighbours };
        let heads = Heads { query, kv, dim, pairing };
        let input = Input::random(heads, 600, index as u64);
        // Rounding of queries and weights to 14 bits is all that codes add to what the cache has lost.
        // Keys and values are kept apart in code, too: of two formats at once a few shapes say enough.
        for format in formats().into_iter().filter(|format| index < 2 || format.keys == format.values) {
            let floats = |kept| matches!(kept, Kept::F32 | Kept::F16);
            let bound = if floats(format.keys) && floats(format.values) { 2e-6 } else { 2e-3 };
            let got = Machine::new(Cpu::best(), 2, format).alone(&input, 600);
            let width = query * dim;
            let mut worst = 0f64;
            for position in [0, 1, 2, 3, 4, 15, 16, 17, 63, 64, 255, 256, 257, 300, 511, 512, 599] {
                let want = definition(format, &input, position);
                for (got, want) in got[position * width..][..width].iter().zip(want) {
                    worst = worst.max((f64::from(*got) - want).abs());
                }
            }
            println!("{heads:?} {format}: {worst:.1e}");
            assert!(worst < bound, "{heads:?} {format}: {worst}");
        }
    }
}

#[test]
fn a_window_hides_what_is_before_it() {
    let heads = Heads { query: 4, kv: 2, dim: 8, pairing: Pairing::Halves };
    let width = heads.query * heads.dim;
    for window in [300, 5, 1, 256, 590].into_iter().take(if EMULATED { 2 } else { 5 }) {
        let input = Input { window, ..Input::random(heads, 600, window as u64) };
        let q4 = KvFormat::both(Kept::Q4);
        for (format, bound) in [(KvFormat::F32, 2e-6), (KvFormat::INT8, 1e-3), (q4, 1e-3)] {
            let got = Machine::new(Cpu::best(), 2, format).alone(&input, 600);
            for position in [0, 1, 4, 5, 16, 254, 255, 256, 257, 511, 512, 513, 556, 599] {
                let want = definition(format, &input, position);
                for (got, want) in got[position * width..][..width].iter().zip(want) {
                    let apart = (f64::from(*got) - want).abs();
                    assert!(apart < bound, "{format}, window {window}, position {position}: {apart:.1e}");
                }
            }
            for cpu in Cpu::available() {
                for (threads, piece) in [(1, 600), (3, 1), (2, 131)] {
                    let cut = Machine::new(cpu, threads, format).alone(&input, piece);
                    assert!(bits(&cut) == bits(&got), "window {window}: {} {threads} {piece}", cpu.name());
                }
            }
        }
    }
}

#[test]
fn threads_pieces_and_instruction_sets_do_not_change_a_bit() {
    for (query, kv, dim) in [(4, 2, 8), (6, 3, 18), (40, 2, 36), (8, 2, 128), (2, 1, 202)] {
        if EMULATED && query * dim > 512 {
            continue;
        }
        let heads = Heads { query, kv, dim, pairing: Pairing::Halves };
        let input = Input::random(heads, 300, 7);
        for format in formats() {
            let want = bits(&Machine::new(Cpu::best(), 1, format).alone(&input, 300));
            for cpu in Cpu::available() {
                // Of two formats at once the hardest cuts say enough.
                let ways = [(3, 1), (2, 131), (1, 7), (1, 300), (2, 300), (40, 150)];
                let most = if EMULATED { 2 } else { ways.len() };
                let ways = if format.keys == format.values { &ways[..most] } else { &ways[..2] };
                for &(threads, piece) in ways {
                    let got = bits(&Machine::new(cpu, threads, format).alone(&input, piece));
                    assert!(
                        got == want,
                        "{heads:?} {format}: {} {threads} threads, pieces of {piece}",
                        cpu.name()
                    );
                }
            }
        }
    }
}

#[test]
fn company_does_not_change_a_bit() {
    let heads = Heads { query: 4, kv: 2, dim: 16, pairing: Pairing::Halves };
    let lengths = [1, 530, 17, 256, 300];
    let inputs: Vec<Input> =
        lengths.iter().zip(0..).map(|(&len, seed)| Input::random(heads, len, seed)).collect();
    for format in formats() {
        let alone = Machine::new(Cpu::best(), 1, format);
        let want: Vec<Vec<f32>> = inputs.iter().map(|input| alone.alone(input, 64)).collect();
        for threads in [3, 2, 1].into_iter().take(if EMULATED { 1 } else { 3 }) {
            // All but the last 3 of each in one step, rows of different sequences in turn; then the rest, one by one.
            let machine = Machine::new(Cpu::best(), threads, format);
            let mut texts: Vec<Cache> = inputs.iter().map(|input| input.cache(format)).collect();
            let mut attention = Attention::default();
            let cut: Vec<usize> = lengths.iter().map(|len| len - len.min(&3)).collect();
            let mut steps = vec![Vec::new(); 4];
            for position in 0..530 {
                for s in 0..lengths.len() {
                    if position < cut[s] {
                        steps[0].push((s, position));
                    } else if position < lengths[s] {
                        steps[1 + position - cut[s]].push((s, position));
                    }
                }
            }
            let width = heads.query * heads.dim;
            for rows in steps {
                let got = machine.step(&mut attention, &inputs, &mut texts, &rows).unwrap();
                for (row, (s, p)) in rows.into_iter().enumerate() {
                    assert!(
                        bits(&got[row * width..][..width]) == bits(&want[s][p * width..][..width]),
                        "{format}, {threads} threads: sequence {s}, position {p}"
                    );
                }
            }
        }
    }
}

#[test]
fn writing_positions_again_mends_them() {
    let heads = Heads { query: 2, kv: 1, dim: 6, pairing: Pairing::Neighbours };
    let (input, mut other) = (Input::random(heads, 290, 1), Input::random(heads, 290, 2));
    other.v.iter_mut().for_each(|v| *v *= 30.0);
    for format in formats() {
        let machine = Machine::new(Cpu::best(), 2, format);
        let want = machine.alone(&input, 290);
        let (mut attention, mut texts) = (Attention::default(), [input.cache(format)]);
        let rows: Vec<(usize, usize)> = (0..290).map(|p| (0, p)).collect();
        machine.step(&mut attention, std::slice::from_ref(&other), &mut texts, &rows).unwrap();
        for start in [5, 0] {
            let got = machine.step(&mut attention, std::slice::from_ref(&input), &mut texts, &rows[start..]);
            if start == 0 {
                assert!(bits(&got.unwrap()) == bits(&want), "{format}");
            }
        }
    }
}

#[test]
fn memory_of_an_earlier_text_serves_the_next_one() {
    let heads = Heads { query: 2, kv: 1, dim: 6, pairing: Pairing::Neighbours };
    let (mut long, short) = (Input::random(heads, 512, 1), Input::random(heads, 290, 2));
    long.v.iter_mut().chain(&mut long.k).for_each(|x| *x *= 30.0);
    for format in formats() {
        let machine = Machine::new(Cpu::best(), 2, format);
        let (want, count) = (machine.alone(&short, 100), ChunkCount::keeping(2));
        let run = |input: &Input| {
            let mut texts = [Cache::new(format, LAYERS, heads.kv, heads.dim).counted(&count)];
            let rows: Vec<(usize, usize)> = (0..input.positions()).map(|p| (0, p)).collect();
            let mut out = Vec::new();
            for rows in rows.chunks(100) {
                texts[0].reserve(rows[0].1, rows[0].1 + rows.len()).unwrap();
                let inputs = std::slice::from_ref(input);
                out.extend(machine.step(&mut Attention::default(), inputs, &mut texts, rows).unwrap());
            }
            assert_eq!(count.get(), 2);
            out
        };
        run(&long);
        assert_eq!((count.get(), count.spare()), (0, 2));
        assert!(bits(&run(&short)) == bits(&want), "{format}");
        assert_eq!((count.get(), count.spare()), (0, 2), "the same two, no more");
    }
}

#[test]
fn extreme_values_keep_to_the_definition() {
    let heads = Heads { query: 4, kv: 2, dim: 32, pairing: Pairing::Halves };
    let base = Input::random(heads, 270, 3);
    let with = |q: f32, k: f32, v: f32| {
        let mut input = base.clone();
        input.q.iter_mut().for_each(|x| *x *= q);
        input.k.iter_mut().for_each(|x| *x *= k);
        input.v.iter_mut().for_each(|x| *x *= v);
        input
    };
    let mut equal = base.clone();
    equal.k.fill(1.0);
    equal.v.fill(-2.5);
    let cases = [
        ("equal", equal, 2.5),
        ("zero queries", with(0.0, 1.0, 1.0), 1.5),
        ("zero keys", with(1.0, 0.0, 1.0), 1.5),
        ("zero values", with(1.0, 1.0, 0.0), 1.0),
        ("all zero", with(0.0, 0.0, 0.0), 1.0),
        ("one takes all", with(300.0, 10.0, 1.0), 1.5),
        ("large values", with(1.0, 1.0, 4e4), 6e4),
        ("small keys", with(1e4, 1e-4, 1.0), 1.5),
        ("small values", with(1.0, 1.0, 1e-4), 1.5e-4),
    ];
    for (name, input, size) in cases {
        for format in formats() {
            let got = Machine::new(Cpu::best(), 2, format).alone(&input, 100);
            let width = heads.query * heads.dim;
            for position in [0, 15, 16, 255, 256, 269] {
                let want = definition(format, &input, position);
                for (got, want) in got[position * width..][..width].iter().zip(want) {
                    let error = (f64::from(*got) - want).abs() / size;
                    // Scores of some thousands leave a weight few exact bits.
                    let bound = if name == "one takes all" { 2e-2 } else { 1e-3 };
                    assert!(error < bound, "{name} {format} at {position}: {got} {want}");
                }
            }
        }
    }
}

#[test]
fn what_a_cache_cannot_hold_is_refused() {
    let heads = Heads { query: 2, kv: 2, dim: 20, pairing: Pairing::Halves };
    for positions in [1, 40] {
        for format in formats() {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 65520.0] {
                for in_keys in [false, true] {
                    let mut input = Input::random(heads, positions, 5);
                    let at = (positions - 1) * heads.kv * heads.dim + 23;
                    if in_keys {
                        input.k[at] = bad
                    } else {
                        input.v[at] = bad
                    }
                    input.angles = vec![1.0; positions * heads.dim]; // keeps 65520 from being turned to less
                    let machine = Machine::new(Cpu::best(), 2, format);
                    let rows: Vec<(usize, usize)> = (0..positions).map(|p| (0, p)).collect();
                    let mut texts = [input.cache(format)];
                    let got = machine.step(
                        &mut Attention::default(),
                        std::slice::from_ref(&input),
                        &mut texts,
                        &rows,
                    );
                    let want = match (bad.is_finite(), format) {
                        (false, _) => Some(Unstorable::NotFinite),
                        (true, format)
                            if (if in_keys { format.keys } else { format.values }) == Kept::F16 =>
                        {
                            Some(Unstorable::BeyondF16)
                        }
                        (true, _) => None,
                    };
                    assert_eq!(got.err(), want, "{bad} {format}");
                }
            }
        }
    }
}

#[test]
fn a_query_that_is_not_finite_gives_no_number() {
    let heads = Heads { query: 2, kv: 1, dim: 8, pairing: Pairing::Halves };
    for format in formats() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut input = Input::random(heads, 20, 5);
            input.q[19 * 16 + 3] = bad;
            let got = Machine::new(Cpu::best(), 1, format).alone(&input, 20);
            assert!(got[19 * 16..][..8].iter().all(|x| x.is_nan()), "{bad} {format}");
            assert!(got[..19 * 16].iter().all(|x| x.is_finite()));
        }
    }
}

#[test]
fn a_cache_too_large_for_memory_is_refused() {
    let mut cache = Cache::new(KvFormat::F32, 4096, 1 << 14, 512);
    assert!(cache.reserve(0, usize::MAX / 2).is_err());
    let mut cache = Cache::new(KvFormat::INT8, 1, 1, 8);
    cache.reserve(0, 300).unwrap();
    assert_eq!(cache.positions(), 512);
    assert!(cache.fits(KvFormat::INT8, 1, 1, 8) && !cache.fits(KvFormat::F16, 1, 1, 8));
}
