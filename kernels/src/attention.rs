//! Attention: queries against the keys and values of the positions they see, for any number of tokens of any number of
//! sequences at once.
//!
//! Work is cut into tiles of at most 32 queries that share a key-value head, and where there are few tiles (decode) into
//! chunks of 256 positions too. A query's arithmetic is the same however it is cut: a chunk is summed by itself, and
//! chunks are joined in order (`softmax.rs`). `cache.rs` draws the layouts that make all of it run side by side.

mod cache;
mod chunks;
mod dots;
mod floats;
mod format;
mod grouped;
mod int8;
mod packed;
mod plan;
mod products;
mod rotation;
mod softmax;
mod stored;
mod tile;
mod write;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use cache::{Cache, Chunk, ChunkCount, OutOfMemory};
pub use format::{Kept, KvFormat};
pub use plan::Place;
pub use rotation::Pairing;
pub use write::Unstorable;

use self::format::CHUNK;
use self::plan::{Item, Plan};
use self::rotation::rotate;
use self::softmax::Sum;
use self::tile::{Buffers, Queries, Query, Tile};
use self::write::{Writer, even_out};
use crate::cpu::Cpu;
use crate::isa::{Isa, Kernel};
use crate::pool::{Disjoint, Pool};

/// Widest head that attention takes.
pub const MAX_HEAD_DIM: usize = 512;
/// Most queries of a tile.
const COLUMNS: usize = 32;
/// Rows up to which the calling thread prepares them alone: waking the others would take longer.
const ALONE: usize = 2;

/// The heads of a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heads {
    /// Query heads.
    pub query: usize,
    /// Key and value heads; each serves `query / kv` query heads.
    pub kv: usize,
    /// Width of a head.
    pub dim: usize,
    /// Which elements rotate together.
    pub pairing: Pairing,
}

/// The rows of one layer.
pub struct Rows<'a> {
    /// Queries as projected, `(rows, query heads, dim)`; rotated and scaled on return.
    pub q: &'a mut [f32],
    /// Keys as projected, `(rows, kv heads, dim)`.
    pub k: &'a [f32],
    /// Values, laid out like the keys.
    pub v: &'a [f32],
    /// For each row the cosines and then the sines of its angles, `(rows, dim)`.
    pub angles: &'a [f32],
    /// The weighted means of the values, `(rows, query heads, dim)`.
    pub out: &'a mut [f32],
    /// How many positions each row sees at most, its own and those just before it; `usize::MAX` for all.
    pub window: usize,
}

/// The plan of a forward pass and its buffers, kept from one to the next.
#[derive(Debug, Default)]
pub struct Attention {
    heads: Heads,
    format: KvFormat,
    plan: Plan,
    /// `(queries, parts, padded dim)`, where the keys are codes.
    codes: Vec<i8>,
    rounded: Vec<Query>,
    /// Sums over single chunks: `dim` values, then the largest score and the sum of the weights.
    partial: Vec<f32>,
}

impl Attention {
    /// Plans the rows of a forward pass, which are the same in every layer. Rows of one sequence are in the order of
    /// their positions.
    pub fn plan(
        &mut self,
        heads: Heads,
        format: KvFormat,
        threads: usize,
        places: impl Iterator<Item = Place>,
    ) {
        assert!(heads.kv > 0 && heads.query.is_multiple_of(heads.kv), "{heads:?}");
        assert!(heads.dim <= MAX_HEAD_DIM && heads.dim.is_multiple_of(2), "{heads:?}");
        (self.heads, self.format) = (heads, format);
        self.plan.make(heads, threads, places);
    }

    /// One layer: rotates queries and keys, appends keys and values to the caches, and attends. On an error the caches
    /// hold some of the rows; writing those positions again mends them.
    pub fn run<S>(
        &mut self,
        cpu: Cpu,
        pool: &Pool,
        layer: usize,
        rows: Rows<'_>,
        sequences: &mut [S],
    ) -> Result<(), Unstorable>
    where
        S: AsRef<Cache> + AsMut<Cache> + Send + Sync,
    {
        let Heads { query, kv, dim, .. } = self.heads;
        let count = self.plan.places.len();
        assert!(rows.q.len() == count * query * dim && rows.out.len() == rows.q.len(), "{count} rows of q");
        assert!(rows.k.len() == count * kv * dim && rows.v.len() == rows.k.len(), "{count} rows of k and v");
        assert_eq!(rows.angles.len(), count * dim, "angles of {count} rows");
        assert!(rows.window > 0, "a row sees itself");
        for place in &self.plan.places {
            let cache: &Cache = sequences[place.sequence].as_ref();
            assert!(place.position < cache.positions() && cache.format() == self.format, "{place:?}");
        }
        self.prepare(cpu, pool, rows.q, rows.angles);
        self.append(cpu, pool, layer, &rows, sequences)?;
        self.attend(cpu, pool, layer, rows, sequences);
        Ok(())
    }

    /// Rotates and scales the queries, and rounds them where the keys are codes.
    fn prepare(&mut self, cpu: Cpu, pool: &Pool, q: &mut [f32], angles: &[f32]) {
        let Heads { query, dim, pairing, .. } = self.heads;
        let queries = self.plan.places.len() * query;
        let (keys, parts) = (self.format.keys, self.format.keys.query_parts());
        let (round, len) = (parts > 0, parts * keys.padded(dim));
        self.codes.resize(queries * len, 0);
        self.rounded.resize(if round { queries } else { 0 }, Query::default());
        let (q, codes, rounded) =
            (Disjoint::new(q), Disjoint::new(&mut self.codes), Disjoint::new(&mut self.rounded));
        let scale = 1.0 / (dim as f32).sqrt();
        let prepare = |index: usize| {
            let angles = &angles[index / query * dim..][..dim];
            // SAFETY: parts of different indices do not overlap, and `spread` gives an index to one thread.
            let (q, codes, rounded) = unsafe {
                (
                    q.slice(index * dim..(index + 1) * dim),
                    codes.slice(index * len..(index + 1) * len),
                    rounded.slice(if round { index..index + 1 } else { 0..0 }),
                )
            };
            cpu.run(Prepare { q, angles, pairing, scale, keys, codes, rounded: rounded.first_mut() });
        };
        spread(pool, queries, self.plan.places.len() <= ALONE, prepare);
    }

    /// Writes keys and values: one sequence to a thread, and of sequences with many rows one head.
    fn append<S>(
        &self,
        cpu: Cpu,
        pool: &Pool,
        layer: usize,
        rows: &Rows<'_>,
        sequences: &mut [S],
    ) -> Result<(), Unstorable>
    where
        S: AsMut<Cache> + Send + Sync,
    {
        /// Rows from which the heads of a sequence are spread over the threads.
        const MANY: usize = 16;
        let plan = &self.plan;
        let failure = Mutex::new(None);
        let write = |run: &[usize], chunk: usize, head: usize, writer: Writer, part: &mut [u8]| {
            let (places, k, v, angles) = (&plan.places[..], rows.k, rows.v, rows.angles);
            let append =
                Append { rows: run, places, chunk, k, v, angles, heads: self.heads, head, writer, part };
            if let Err(what) = cpu.run(append) {
                failure.lock().expect("no panic under this lock").get_or_insert(what);
            }
        };
        let same_chunk =
            |a: &usize, b: &usize| plan.places[*a].position / CHUNK == plan.places[*b].position / CHUNK;
        let chunk_of = |run: &[usize]| plan.places[run[0]].position / CHUNK;

        for run in plan.runs().filter(|run| run.len() >= MANY) {
            let cache: &mut Cache = sequences[plan.places[run[0]].sequence].as_mut();
            let writer = cache.writer();
            for run in run.chunk_by(same_chunk) {
                let (bytes, len) = cache.layer_mut(layer, chunk_of(run));
                pool.for_chunks(bytes, len, |head, part| write(run, chunk_of(run), head, writer, part));
            }
        }
        let sequences = Disjoint::new(sequences);
        let one = |index: usize| {
            let run = plan.run(index);
            if run.len() >= MANY {
                return;
            }
            let sequence = plan.places[run[0]].sequence;
            // SAFETY: each sequence has one run, and `spread` gives a run to one thread.
            let cache: &mut Cache = unsafe { sequences.slice(sequence..sequence + 1) }[0].as_mut();
            let writer = cache.writer();
            for run in run.chunk_by(same_chunk) {
                let (bytes, len) = cache.layer_mut(layer, chunk_of(run));
                for (head, part) in bytes.chunks_exact_mut(len).enumerate() {
                    write(run, chunk_of(run), head, writer, part);
                }
            }
        };
        spread(pool, plan.runs.len(), plan.runs.len() <= ALONE, one);
        failure.into_inner().expect("no panic under this lock").map_or(Ok(()), Err)
    }

    fn attend<S>(&mut self, cpu: Cpu, pool: &Pool, layer: usize, rows: Rows<'_>, sequences: &[S])
    where
        S: AsRef<Cache> + Sync,
    {
        let Heads { query, dim, .. } = self.heads;
        self.partial.resize(self.plan.slots * (dim + 2), 0.0);
        let parts = (self.format.keys.query_parts(), self.format.keys.padded(dim) / 4);
        let queries = Queries { floats: rows.q, codes: &self.codes, parts, rounded: &self.rounded };
        let values = self.format.values;
        let window = rows.window;
        let (out, partial) = (Disjoint::new(rows.out), Disjoint::new(&mut self.partial));
        let (next, plan) = (AtomicUsize::new(0), &self.plan);
        pool.run(|_| {
            cpu.run(Work {
                heads: self.heads,
                plan,
                queries,
                values,
                out: &out,
                partial: &partial,
                next: &next,
                threads: pool.threads(),
                sequences,
                layer,
                window,
            });
        });
        if plan.slots == 0 {
            return;
        }
        let partial = &self.partial;
        let join = |index: usize| {
            let (row, head) = (index / query, index % query);
            let Some(slots) = plan.slots_of(row, head) else { return };
            // SAFETY: parts of different indices do not overlap, and `spread` gives an index to one thread.
            let out = unsafe { out.slice(index * dim..(index + 1) * dim) };
            cpu.run(Join { partial: &partial[slots.start * (dim + 2)..slots.end * (dim + 2)], values, out });
        };
        spread(pool, plan.places.len() * query, false, join);
    }
}

/// Calls `job` with every index below `count`, on the calling thread alone or on all.
fn spread(pool: &Pool, count: usize, alone: bool, job: impl Fn(usize) + Sync) {
    if alone {
        (0..count).for_each(job);
    } else {
        pool.for_each(count, job);
    }
}

struct Prepare<'a> {
    q: &'a mut [f32],
    angles: &'a [f32],
    pairing: Pairing,
    scale: f32,
    keys: Kept,
    codes: &'a mut [i8],
    rounded: Option<&'a mut Query>,
}

impl Kernel for Prepare<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        rotate(self.pairing, self.angles, self.q);
        for q in self.q.iter_mut() {
            *q *= self.scale;
        }
        if self.keys.is_rotated() {
            even_out(isa, self.q);
        }
        if let Some(rounded) = self.rounded {
            *rounded = int8::round(self.q, self.codes, self.keys.query_parts());
        }
    }
}

/// Appends rows of one sequence to one head of one chunk.
struct Append<'a> {
    rows: &'a [usize],
    places: &'a [Place],
    chunk: usize,
    k: &'a [f32],
    v: &'a [f32],
    angles: &'a [f32],
    heads: Heads,
    head: usize,
    writer: Writer,
    part: &'a mut [u8],
}

impl Kernel for Append<'_> {
    type Output = Result<(), Unstorable>;

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> Result<(), Unstorable> {
        let Heads { kv, dim, pairing, .. } = self.heads;
        let (mut key, mut value) = ([0f32; MAX_HEAD_DIM], [0f32; MAX_HEAD_DIM]);
        let (key, value) = (&mut key[..dim], &mut value[..dim]);
        let KvFormat { keys, values } = self.writer.format;
        for &row in self.rows {
            let first = (row * kv + self.head) * dim;
            key.copy_from_slice(&self.k[first..][..dim]);
            rotate(pairing, &self.angles[row * dim..][..dim], key);
            if keys.is_rotated() {
                even_out(isa, key);
            }
            value.copy_from_slice(&self.v[first..][..dim]);
            if values.is_rotated() {
                even_out(isa, value);
            }
            let position = self.places[row].position;
            self.writer.write(self.part, position - self.chunk * CHUNK, position == 0, key, value)?;
        }
        Ok(())
    }
}

/// What one worker does: items of the plan until none is left.
struct Work<'a, S> {
    heads: Heads,
    plan: &'a Plan,
    queries: Queries<'a>,
    values: Kept,
    out: &'a Disjoint<'a, f32>,
    partial: &'a Disjoint<'a, f32>,
    next: &'a AtomicUsize,
    threads: usize,
    sequences: &'a [S],
    layer: usize,
    window: usize,
}

impl<S: AsRef<Cache>> Kernel for Work<'_, S> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let mut buffers = Buffers::new();
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = self.plan.items.get(index) else { return };
            // The items that the others take meanwhile are about as long.
            let next = self.plan.items.get(index + self.threads);
            let next = next.map_or((&[][..], &[][..]), |item| self.beginning(item));
            self.item(isa, item, next, &mut buffers);
        }
    }
}

impl<S: AsRef<Cache>> Work<'_, S> {
    /// The first keys that an item reads, and their scales.
    fn beginning(&self, item: &Item) -> (&[u8], &[u8]) {
        let sequence = self.plan.places[self.plan.order[item.first_row]].sequence;
        self.sequences[sequence].as_ref().head(self.layer, item.head, item.chunks.start).beginning()
    }

    #[inline(always)]
    fn item<I: Isa>(&self, isa: I, item: &Item, next: (&[u8], &[u8]), buffers: &mut Buffers) {
        let Heads { query: heads, kv, dim, .. } = self.heads;
        let group = heads / kv;
        let columns = item.columns.len();
        let (mut query, mut position, mut at) = ([0; COLUMNS], [0; COLUMNS], [0; COLUMNS]);
        for (c, column) in item.columns.clone().enumerate() {
            let row = self.plan.order[item.first_row + column / group];
            let head = item.head * group + column % group;
            query[c] = row * heads + head;
            position[c] = self.plan.places[row].position;
            at[c] = match self.plan.slots_of(row, head) {
                Some(slots) => (slots.start + item.chunks.start) * (dim + 2),
                None => query[c] * dim,
            };
        }
        let sequence = self.plan.places[self.plan.order[item.first_row]].sequence;
        let out = if item.split { self.partial } else { self.out };
        let queries = self.queries;
        let (seen, sums, window) = ([(0, 0); COLUMNS], [Sum::EMPTY; COLUMNS], self.window);
        let mut tile =
            Tile { dim, columns, queries, query, position, window, seen, sums, at, out, buffers, next };
        tile.run(isa, self.sequences[sequence].as_ref(), self.layer, item.head, item.chunks.clone());
        for c in 0..columns {
            let Sum { top, total } = tile.sums[c];
            if item.split {
                // SAFETY: the slot belongs to this item alone, see `Tile::out`.
                let end = unsafe { self.partial.slice(at[c] + dim..at[c] + dim + 2) };
                end.copy_from_slice(&[top, total]);
            } else {
                finish(isa, tile.out(c), total, self.values);
            }
        }
    }
}

/// Joins the sums of a query's chunks, in order.
struct Join<'a> {
    partial: &'a [f32],
    values: Kept,
    out: &'a mut [f32],
}

impl Kernel for Join<'_> {
    type Output = ();

    #[inline(always)]
    fn run<I: Isa>(self, isa: I) {
        let dim = self.out.len();
        let mut sum = Sum::EMPTY;
        self.out.fill(0.0);
        for slot in self.partial.chunks_exact(dim + 2) {
            let (values, end) = slot.split_at(dim);
            let (mine, theirs) = sum.join(Sum { top: end[0], total: end[1] });
            for (out, value) in self.out.iter_mut().zip(values) {
                *out = *out * mine + value * theirs;
            }
        }
        finish(isa, self.out, sum.total, self.values);
    }
}

/// The mean of a weighted sum, rotated back.
#[inline(always)]
fn finish<I: Isa>(isa: I, out: &mut [f32], total: f32, values: Kept) {
    for out in out.iter_mut() {
        *out /= total;
    }
    if values.is_rotated() {
        even_out(isa, out);
    }
}
