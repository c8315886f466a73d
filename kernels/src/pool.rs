//! A pool of threads for work that is done in microseconds: workers spin a while for the next job before they park.

mod disjoint;
mod round;
mod spawn;

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

pub(crate) use self::disjoint::Disjoint;
use self::round::{MOST_WORKERS, Round, Within};
pub use self::spawn::help;
use self::spawn::{Worker, spawn};

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

/// Threads that work on one job at a time together with the caller. A job is cut into pieces, which go to the threads that are
/// free: a worker that the scheduler has preempted is not waited for, only a piece that it has begun.
pub struct Pool {
    round: Arc<Round>,
    workers: Vec<Worker>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({})", self.threads())
    }
}

impl Pool {
    /// A pool of `threads` threads, the caller's counted in. Where the system gives fewer, it is smaller.
    pub fn new(threads: usize) -> Self {
        let round = Arc::new(Round::default());
        let begin = |worker| {
            let round = round.clone();
            spawn(format!("tern-{worker}"), move || round.work(worker))
        };
        let workers = (1..threads.clamp(1, MOST_WORKERS)).map_while(begin).collect();
        Self { round, workers }
    }

    /// Threads that take part in a job.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// The `nth` of as many parts of `0..count` as there are threads: contiguous, in order, sizes differing by at most one.
    pub fn share(&self, count: usize, nth: usize) -> Range<usize> {
        let cut = |nth: usize| count * nth / self.threads();
        cut(nth)..cut(nth + 1)
    }

    /// Calls `job(0)` on this thread and `job(worker)`, `worker` in `1..threads()`, on those workers that come before it
    /// returns, each once; returns when all these calls have. So a job takes its pieces from something that all calls
    /// share, such as [`Shares`], until nothing is left. A panic in one is passed on to the caller.
    ///
    /// # Panics
    /// Where a job calls it on its own pool.
    pub(crate) fn run(&self, job: impl Fn(usize) + Sync) {
        if self.workers.is_empty() {
            let _within = Within::of(&self.round);
            return job(0);
        }
        self.round.run(&job, || self.workers.iter().for_each(Worker::unpark));
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

/// Pieces of `0..count`, handed out in order: large ones first, so that memory is read in long runs, small ones at the
/// end, so that all threads finish at the same time even where one was preempted.
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
            // Relaxed: the pieces carry no data; the round's end orders the results.
            match self.next.compare_exchange_weak(start, end, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(start..end),
                Err(now) => start = now,
            }
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.round.stop();
        for worker in self.workers.drain(..) {
            worker.unpark();
            worker.join();
        }
    }
}

// WebAssembly has one thread and catches no panic.
#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::sync::Barrier;

    use super::*;

    /// Waits for all threads of the pool in one job.
    fn together(pool: &Pool) -> usize {
        let (all, count) = (Barrier::new(pool.threads()), AtomicUsize::new(0));
        pool.run(|_| {
            all.wait();
            count.fetch_add(1, Ordering::Relaxed);
        });
        count.into_inner()
    }

    #[test]
    fn every_chunk_is_visited_once_round_after_round() {
        for threads in [1, 2, 5] {
            let pool = Pool::new(threads);
            let mut data = vec![0usize; if cfg!(miri) { 53 } else { 1003 }];
            for round in 1..if cfg!(miri) { 4 } else { 200 } {
                pool.for_chunks(&mut data, 10, |index, chunk| chunk.iter_mut().for_each(|v| *v += index + 1));
                assert!(data.iter().enumerate().all(|(i, v)| *v == round * (i / 10 + 1)));
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_with_its_message_and_the_pool_lives_on() {
        for threads in [1, 3] {
            let pool = Pool::new(threads);
            for bad in 0..threads {
                let all = Barrier::new(threads);
                let job = |worker| {
                    all.wait();
                    assert_ne!(worker, bad, "worker {bad} is bad");
                };
                let panic = catch_unwind(AssertUnwindSafe(|| pool.run(job))).unwrap_err();
                let message = panic.downcast::<String>().expect("the message of `assert_ne`");
                assert!(message.contains(&format!("worker {bad} is bad")), "{message}");
                assert_eq!(together(&pool), threads);
            }
        }
    }

    #[test]
    fn a_job_within_a_job_of_the_same_pool_panics_and_does_not_hang() {
        for threads in [1, 3] {
            let pool = Pool::new(threads);
            for bad in 0..threads {
                let all = Barrier::new(threads);
                let job = |worker| {
                    all.wait();
                    if worker == bad {
                        pool.run(|_| ());
                    }
                };
                let panic = catch_unwind(AssertUnwindSafe(|| pool.run(job))).unwrap_err();
                let message = panic.downcast::<&str>().expect("the message of the assertion");
                assert!(message.contains("wait for itself"), "{message}");
                // Another pool's job is another matter.
                let other = Pool::new(2);
                pool.run(|_| other.for_each(2, |_| ()));
                assert_eq!(together(&pool), threads);
            }
        }
    }

    #[test]
    fn parked_workers_wake() {
        let pool = Pool::new(2);
        for _ in 0..3 {
            thread::sleep(std::time::Duration::from_millis(5));
            assert_eq!(together(&pool), 2);
        }
    }

    #[test]
    fn many_callers_take_turns() {
        let (pool, rounds) = (Pool::new(3), if cfg!(miri) { 2 } else { 500 });
        thread::scope(|scope| {
            for caller in 0..3 {
                let pool = &pool;
                scope.spawn(move || {
                    for round in 0..rounds {
                        let mut data = [0; 40];
                        pool.for_chunks(&mut data, 1, |index, v| v[0] = index + round + caller);
                        assert!(data.iter().enumerate().all(|(index, v)| *v == index + round + caller));
                    }
                });
            }
        });
    }
}
