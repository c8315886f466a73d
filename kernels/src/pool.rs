//! A pool of threads for work that is done in microseconds: workers spin a while for the next job before they park.

use std::cell::UnsafeCell;
use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

/// How often a worker looks for the next job before it parks: some 50 microseconds.
const SPINS: usize = 4_000;

/// The number of threads to use unless told: physical cores, no more than this process may use (affinity, cgroup).
pub fn default_threads() -> usize {
    let allowed = thread::available_parallelism().map_or(1, |n| n.get());
    physical_cores().map_or(allowed, |cores| cores.min(allowed)).max(1)
}

/// Distinct sets of sibling threads, where the system tells them.
fn physical_cores() -> Option<usize> {
    let mut cores = BTreeSet::new();
    for entry in std::fs::read_dir("/sys/devices/system/cpu").ok()?.flatten() {
        let name = entry.file_name();
        let digits = name.to_str()?.strip_prefix("cpu").unwrap_or("");
        if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
            let siblings = std::fs::read_to_string(entry.path().join("topology/thread_siblings_list"));
            cores.extend(siblings.ok());
        }
    }
    (!cores.is_empty()).then_some(cores.len())
}

type Job = *const (dyn Fn(usize) + Sync);

struct Shared {
    /// The job of the present round; written only between rounds.
    job: UnsafeCell<Option<Job>>,
    /// Counts rounds; a change is the signal to start.
    round: AtomicUsize,
    /// Workers that have not finished the present round.
    pending: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
}

// SAFETY: `job` is written by the caller of `run`, under its lock, while `pending` is 0 (no worker reads), and read by
// workers after an acquire of the new `round`; the closure behind it is Sync.
unsafe impl Sync for Shared {}
// SAFETY: the pointer in `job` is used only during `run`, which keeps the closure alive; see `Pool::run`.
unsafe impl Send for Shared {}

/// Threads that work on one job at a time together with the caller.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    turn: Mutex<()>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({})", self.threads())
    }
}

impl Pool {
    /// A pool of `threads` threads, the caller's counted in. Where the system gives fewer, it is smaller.
    pub fn new(threads: usize) -> Self {
        let shared = Arc::new(Shared {
            job: UnsafeCell::new(None),
            round: AtomicUsize::new(0),
            pending: AtomicUsize::new(0),
            panicked: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        });
        let spawn = |worker| {
            let shared = shared.clone();
            thread::Builder::new().name(format!("tern-{worker}")).spawn(move || work(&shared, worker))
        };
        let workers = (1..threads.max(1)).map_while(|worker| spawn(worker).ok()).collect();
        Self { shared, workers, turn: Mutex::new(()) }
    }

    /// Threads that take part in a job.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// The part of `0..count` that falls to a worker: contiguous, in order, sizes differing by at most one.
    pub fn share(&self, count: usize, worker: usize) -> Range<usize> {
        let cut = |worker: usize| count * worker / self.threads();
        cut(worker)..cut(worker + 1)
    }

    /// Runs `job(worker)` once on every thread, `worker` in `0..threads()`, and returns when all are done. A panic in
    /// one is passed on to the caller. Not to be called from within a job of the same pool.
    pub fn run(&self, job: impl Fn(usize) + Sync) {
        if self.workers.is_empty() {
            return job(0);
        }
        let _turn = self.turn.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let job: &(dyn Fn(usize) + Sync) = &job;
        // SAFETY: only the lifetime changes. The pointer is dropped below, after `pending` has come back to 0, and `job`
        // outlives this call; a panic of `job(0)` is caught, so no path leaves earlier.
        let erased: Job =
            unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(job) };
        // SAFETY: `pending` is 0, so no worker reads the cell, and `_turn` keeps other callers out.
        unsafe { *self.shared.job.get() = Some(erased) };
        self.shared.pending.store(self.workers.len(), Ordering::Relaxed);
        self.shared.round.fetch_add(1, Ordering::Release);
        self.workers.iter().for_each(|worker| worker.thread().unpark());
        let mine = catch_unwind(AssertUnwindSafe(|| job(0)));
        let mut spins = 0;
        while self.shared.pending.load(Ordering::Acquire) > 0 {
            spins += 1;
            if spins < SPINS { std::hint::spin_loop() } else { thread::yield_now() }
        }
        // SAFETY: as above, `pending` is 0 again.
        unsafe { *self.shared.job.get() = None };
        if let Err(panic) = mine {
            resume_unwind(panic);
        }
        if self.shared.panicked.swap(false, Ordering::Relaxed) {
            panic!("a worker thread panicked");
        }
    }

    /// Calls `f` with each of `0..count`, on whichever thread is free; a single one on the caller's.
    pub fn for_each(&self, count: usize, f: impl Fn(usize) + Sync) {
        if count <= 1 {
            return (0..count).for_each(f);
        }
        let shares = Shares::new(count, self.threads());
        self.run(|_| {
            while let Some(piece) = shares.take() {
                piece.for_each(&f);
            }
        });
    }

    /// Cuts `data` into chunks of `len` (the last may be shorter) and gives each to one thread as `f(index, chunk)`.
    pub fn for_chunks<T: Send>(&self, data: &mut [T], len: usize, f: impl Fn(usize, &mut [T]) + Sync) {
        let total = data.len();
        let data = Disjoint::new(data);
        self.for_each(total.div_ceil(len), |index| {
            // SAFETY: chunks of different indices do not overlap, and `for_each` gives an index to one thread.
            f(index, unsafe { data.slice(index * len..((index + 1) * len).min(total)) });
        });
    }

    /// [`Pool::for_chunks`] over several arrays at once, each with its own length of a chunk; they have the same number
    /// of chunks.
    pub fn for_rows<T: Send, const N: usize>(
        &self,
        arrays: [(&mut [T], usize); N],
        f: impl Fn(usize, [&mut [T]; N]) + Sync,
    ) {
        let count = arrays.first().map_or(0, |(data, len)| data.len().div_ceil(*len));
        let arrays = arrays.map(|(data, len)| {
            assert_eq!(data.len().div_ceil(len), count, "chunks of {len}");
            (data.len(), len, Disjoint::new(data))
        });
        self.for_each(count, |index| {
            // SAFETY: as in `for_chunks`, for each of the arrays, which are distinct `&mut`.
            let parts = arrays.each_ref().map(|(total, len, data)| unsafe {
                data.slice(index * len..((index + 1) * len).min(*total))
            });
            f(index, parts);
        });
    }
}

/// Pieces of `0..count` for whoever comes next: large ones first, so that they lie together, small ones at the end, so
/// that all threads finish at the same time even where one was held up.
pub(crate) struct Shares {
    next: AtomicUsize,
    count: usize,
    threads: usize,
}

impl Shares {
    pub(crate) fn new(count: usize, threads: usize) -> Self {
        Self { next: AtomicUsize::new(0), count, threads }
    }

    /// The next piece, until nothing is left.
    pub(crate) fn take(&self) -> Option<Range<usize>> {
        let mut start = self.next.load(Ordering::Relaxed);
        loop {
            let left = self.count - start;
            if left == 0 {
                return None;
            }
            let end = start + if self.threads == 1 { left } else { (left / (2 * self.threads)).max(1) };
            // Relaxed: the pieces carry no data; `Pool::run` orders the results.
            match self.next.compare_exchange_weak(start, end, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(start..end),
                Err(now) => start = now,
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.round.fetch_add(1, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker catches the panics of its jobs; there is nothing to be learned from its end.
            let _ = worker.join();
        }
    }
}

fn work(shared: &Shared, worker: usize) {
    let mut seen = 0;
    loop {
        let mut spins = 0;
        while shared.round.load(Ordering::Acquire) == seen {
            spins += 1;
            if spins < SPINS { std::hint::spin_loop() } else { thread::park() }
        }
        // Rounds cannot be missed: the next one begins only when this worker has finished the present one.
        seen = seen.wrapping_add(1);
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        // SAFETY: the acquire of `round` above orders this read after the caller's write, and the caller neither
        // writes the cell nor lets the closure die before this worker has lowered `pending`.
        let job = unsafe { (*shared.job.get()).map(|job| &*job) };
        let done = catch_unwind(AssertUnwindSafe(|| job.expect("a round has a job")(worker)));
        if done.is_err() {
            shared.panicked.store(true, Ordering::Relaxed);
        }
        shared.pending.fetch_sub(1, Ordering::Release);
    }
}

/// A mutable slice of which several threads hold different parts at once.
pub(crate) struct Disjoint<'a, T> {
    start: *mut T,
    len: usize,
    lives: PhantomData<&'a mut [T]>,
}

// SAFETY: it hands out `&mut [T]` to other threads, which is sound for `T: Send` as long as the parts do not overlap;
// that is the obligation of `slice`.
unsafe impl<T: Send> Sync for Disjoint<'_, T> {}

impl<'a, T> Disjoint<'a, T> {
    /// Takes the slice for its parts to be handed out.
    pub(crate) fn new(data: &'a mut [T]) -> Self {
        Self { start: data.as_mut_ptr(), len: data.len(), lives: PhantomData }
    }

    /// One part.
    ///
    /// # Safety
    /// * While the returned slice lives, no other part that overlaps `range` may be taken.
    #[allow(clippy::mut_from_ref)] // handing out distinct parts through a shared reference is its purpose
    pub(crate) unsafe fn slice(&self, range: Range<usize>) -> &mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {}", self.len);
        // SAFETY: in bounds by the assertion, unique by the caller's promise, alive by `'a`.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

// WebAssembly has one thread and catches no panic.
#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_is_visited_once_round_after_round() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads);
            let mut data = vec![0usize; 1003];
            for round in 1..200 {
                pool.for_chunks(&mut data, 10, |index, chunk| chunk.iter_mut().for_each(|v| *v += index + 1));
                assert!(data.iter().enumerate().all(|(i, v)| *v == round * (i / 10 + 1)));
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(3);
        for bad in 0..3 {
            let result = catch_unwind(AssertUnwindSafe(|| pool.run(|worker| assert_ne!(worker, bad))));
            assert!(result.is_err());
            let count = AtomicUsize::new(0);
            pool.run(|_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(count.into_inner(), 3);
        }
    }

    #[test]
    fn parked_workers_wake() {
        let pool = Pool::new(2);
        let count = AtomicUsize::new(0);
        for _ in 0..3 {
            thread::sleep(std::time::Duration::from_millis(5));
            pool.run(|_| {
                count.fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(count.into_inner(), 6);
    }
}
