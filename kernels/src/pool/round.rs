//! A round: one job, which its caller and the workers that come in time do together.
//!
//! The caller opens the round, does the job itself and closes the round when nothing is left to begin. A worker enters
//! a round that is open and leaves it when its call of the job returns. A round has ended when it is closed and nobody is
//! inside: a worker that was preempted before it entered is not waited for, and finds the round closed.
//!
//! One word holds all of that, so that entering, closing and leaving have one order on which every thread agrees:
//!
//! ```text
//! bits   .. 20      19       18       17    16 .. 0
//!        number     STOP     AWAITED  OPEN  workers inside
//! ```

use std::any::Any;
use std::cell::{RefCell, UnsafeCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// How often a thread looks before it sleeps: some 50 microseconds.
const SPINS: usize = if cfg!(miri) { 4 } else { 4_000 };

const INSIDE: usize = (1 << 17) - 1;
const OPEN: usize = 1 << 17;
/// The caller sleeps until the last worker has left.
const AWAITED: usize = 1 << 18;
/// The pool is gone; workers end.
const STOP: usize = 1 << 19;
/// One in the number of the round. It tells a worker that it has not been in this one yet. Where it wraps around, on 32-bit
/// systems after 4096 rounds, a worker may miss a round, which costs that round some help and nothing else.
const NUMBER: usize = 1 << 20;

/// Most workers: all can be inside.
pub(super) const MOST_WORKERS: usize = INSIDE;

type Job = *const (dyn Fn(usize) + Sync);
type Panic = Box<dyn Any + Send>;

#[derive(Default)]
pub(super) struct Round {
    word: AtomicUsize,
    /// The job of the present round, and of the last one until the next begins.
    job: UnsafeCell<Option<Job>>,
    /// What the first worker that panicked in this round panicked with, and whether one did: a round is too short for a
    /// lock that says no.
    panic: Mutex<Option<Panic>>,
    panicked: AtomicBool,
    /// Held by the caller: one round at a time.
    turn: Mutex<()>,
    /// Where the caller sleeps for the last worker.
    empty: (Mutex<()>, Condvar),
}

// SAFETY: all but `job` is Sync by itself. `job` is written by `run` alone, which holds `turn`, while the round is closed
// and empty, and read by `enter` alone, after it has entered an open round. Entering acquires what opening released, so
// the read comes after that write; the next write comes after `close` has seen nobody inside, which acquires what every
// `leave` released, so it comes after the read. The closure behind the pointer is Sync.
unsafe impl Sync for Round {}
// SAFETY: the pointer in `job` is used between `enter` and `leave` alone, while `run` keeps the closure alive on its
// caller's thread; between rounds nobody reads it.
unsafe impl Send for Round {}

thread_local! {
    /// The rounds whose jobs this thread is doing.
    static WITHIN: RefCell<Vec<*const Round>> = const { RefCell::new(Vec::new()) };
}

/// Notes that this thread does the job of a round, as long as it lives.
pub(super) struct Within;

impl Within {
    pub(super) fn of(round: &Round) -> Self {
        WITHIN.with_borrow_mut(|within| {
            assert!(
                !within.contains(&std::ptr::from_ref(round)),
                "a job of a thread pool gave the same pool another job: it would wait for itself"
            );
            within.push(round);
        });
        Self
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        WITHIN.with_borrow_mut(Vec::pop);
    }
}

impl Round {
    /// Opens a round, calls `wake` and `job(0)`, and returns when every call of `job` that was begun has ended. A panic of
    /// one is passed on with its payload, the caller's own first.
    pub(super) fn run(&self, job: &(dyn Fn(usize) + Sync), wake: impl FnOnce()) {
        let within = Within::of(self);
        let turn = lock(&self.turn);
        // SAFETY: only the lifetime changes. Workers call the closure between `enter` and `leave`. Nobody enters before
        // the round is opened below or after `close` has closed it, and `close` returns when all have left. Between the
        // two, panics are caught, so no path leaves this function with the round open.
        let job_for_all: Job =
            unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(job) };
        // SAFETY: the round is closed and empty, so nobody reads the cell, and `turn` keeps other callers out.
        unsafe { *self.job.get() = Some(job_for_all) };
        let number = self.word.load(Ordering::Relaxed) & !(NUMBER - 1);
        // No exchange is needed: the word of a round that is closed and empty changes nowhere else, but for STOP, which
        // is set when there is no caller any more.
        self.word.store(number.wrapping_add(NUMBER) | OPEN, Ordering::Release);
        let mine = catch_unwind(AssertUnwindSafe(|| {
            wake();
            job(0);
        }));
        self.close();
        // Relaxed: the worker wrote it before it left, and `close` has acquired that.
        let theirs = if self.panicked.load(Ordering::Relaxed) { self.take() } else { None };
        drop(turn);
        drop(within);
        if let Some(panic) = mine.err().or(theirs) {
            resume_unwind(panic);
        }
    }

    /// Closes the round and waits for the workers inside. They finish a piece that was begun, which is soon over, unless the
    /// scheduler has preempted one in the middle of it. Then sleeping is best: a thread that gave its processor back early
    /// is scheduled first when it has work again.
    fn close(&self) {
        let mut word = self.word.fetch_and(!OPEN, Ordering::Acquire);
        for _ in 0..SPINS {
            if word & INSIDE == 0 {
                return;
            }
            std::hint::spin_loop();
            word = self.word.load(Ordering::Acquire);
        }
        let (mutex, left) = &self.empty;
        // AWAITED is set under the lock, and the last worker, if it finds it set, takes the lock before it notifies. So
        // either the worker left before, and is not counted in what `fetch_or` returns, or it notifies when `wait` waits.
        let mut guard = lock(mutex);
        word = self.word.fetch_or(AWAITED, Ordering::Acquire);
        while word & INSIDE > 0 {
            guard = left.wait(guard).unwrap_or_else(PoisonError::into_inner);
            word = self.word.load(Ordering::Acquire);
        }
    }

    /// Enters the round if it is open and not the one `seen` last.
    fn enter(&self, seen: &mut usize) -> Option<Job> {
        let mut word = self.word.load(Ordering::Relaxed);
        while word & OPEN != 0 && word & !(NUMBER - 1) != *seen {
            // The exchange fails where the round was closed, or another opened, since `word` was read. Should all the
            // numbers have gone round in between, `word` describes the round that is open now, and it is entered.
            match self.word.compare_exchange_weak(word, word + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => {
                    *seen = word & !(NUMBER - 1);
                    // SAFETY: this thread is inside, so the caller does not write the cell; see `Sync` above.
                    return unsafe { *self.job.get() };
                }
                Err(now) => word = now,
            }
        }
        None
    }

    /// Leaves the round that was entered; nothing of the job may be touched from here on.
    fn leave(&self) {
        let before = self.word.fetch_sub(1, Ordering::Release);
        if before & AWAITED != 0 && before & INSIDE == 1 {
            let (mutex, left) = &self.empty;
            drop(lock(mutex));
            // The round may have ended by now and another may be waited for: its caller looks again and goes on waiting.
            left.notify_all();
        }
    }

    /// What a worker does all its life: enter the rounds it comes to in time. It looks for them a while before it parks;
    /// the caller that opens a round unparks it.
    pub(super) fn work(&self, worker: usize) {
        let _within = Within::of(self);
        let (mut seen, mut last, mut spins) = (0, 0, 0);
        loop {
            let word = self.word.load(Ordering::Relaxed);
            if word & STOP != 0 {
                return;
            }
            if let Some(job) = self.enter(&mut seen) {
                // SAFETY: `run` keeps the closure alive until this worker has left.
                let done = catch_unwind(AssertUnwindSafe(|| unsafe { &*job }(worker)));
                if let Err(panic) = done {
                    self.keep(panic);
                }
                self.leave();
                spins = 0;
            } else if word & !(NUMBER - 1) != last {
                // One was missed: the next is not far.
                last = word & !(NUMBER - 1);
                spins = 0;
            } else if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                thread::park();
            }
        }
    }

    /// Keeps the first panic of a round for its caller.
    fn keep(&self, panic: Panic) {
        let mut first = lock(&self.panic);
        if first.is_none() {
            *first = Some(panic);
            self.panicked.store(true, Ordering::Relaxed);
        } else {
            // Dropping it runs code that may panic, here, where nothing would catch it.
            std::mem::forget(panic);
        }
    }

    /// The panic that was kept, for its caller.
    #[cold]
    fn take(&self) -> Option<Panic> {
        self.panicked.store(false, Ordering::Relaxed);
        lock(&self.panic).take()
    }

    /// Ends the workers once they are unparked; there must be no caller any more.
    pub(super) fn stop(&self) {
        self.word.fetch_or(STOP, Ordering::Relaxed);
    }
}

/// Nothing panics under these locks that leaves half a change behind.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// WebAssembly has one thread and catches no panic.
#[cfg(all(test, not(target_family = "wasm")))]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_round_ends_without_workers_that_do_not_come() {
        let round = Round::default();
        let calls = AtomicUsize::new(0);
        round.run(
            &|worker| {
                assert_eq!(worker, 0);
                calls.fetch_add(1, Ordering::Relaxed);
            },
            || (),
        );
        assert_eq!(calls.into_inner(), 1);
        // A worker that comes now finds the door closed.
        assert!(round.enter(&mut 0).is_none());
    }

    #[test]
    fn a_round_waits_for_a_worker_that_entered() {
        for pause in [0, 20] {
            let (round, left) = (Round::default(), AtomicBool::new(false));
            let (enter, entered) = (mpsc::channel(), mpsc::channel());
            thread::scope(|scope| {
                let (round, left) = (&round, &left);
                scope.spawn(move || {
                    enter.1.recv().unwrap();
                    let mut seen = 0;
                    assert!(round.enter(&mut seen).is_some());
                    assert!(round.enter(&mut seen).is_none(), "a round is entered once");
                    entered.0.send(()).unwrap();
                    thread::sleep(std::time::Duration::from_millis(pause));
                    left.store(true, Ordering::Relaxed);
                    round.leave();
                });
                let (send, receive) = (Mutex::new(enter.0), Mutex::new(entered.1));
                let job = |_| {
                    send.lock().unwrap().send(()).unwrap();
                    receive.lock().unwrap().recv().unwrap();
                };
                round.run(&job, || ());
                assert!(left.load(Ordering::Relaxed), "the job ended while a worker was inside");
            });
        }
    }

    /// Each round's job lives in a box of its own, which is gone when `run` returns: a worker that called it then would read
    /// freed memory, which Miri sees, or count for a round that is over.
    #[test]
    fn no_worker_touches_a_job_that_has_ended() {
        let (round, rounds) = (Round::default(), if cfg!(miri) { 8 } else { 20_000 });
        thread::scope(|scope| {
            let workers: Vec<_> = (1..4)
                .map(|worker| {
                    let round = &round;
                    scope.spawn(move || round.work(worker)).thread().clone()
                })
                .collect();
            let late = AtomicUsize::new(0);
            for n in 0..rounds {
                let (ended, count) = (Box::new(AtomicBool::new(false)), Box::new(AtomicUsize::new(0)));
                let job = Box::new(|worker: usize| {
                    if worker > 0 && n % 7 == 0 {
                        thread::yield_now();
                    }
                    late.fetch_add(usize::from(ended.load(Ordering::Relaxed)), Ordering::Relaxed);
                    count.fetch_add(1, Ordering::Relaxed);
                });
                round.run(&*job, || workers.iter().take(n % 4).for_each(thread::Thread::unpark));
                ended.store(true, Ordering::Relaxed);
                assert!((1..=4).contains(&count.load(Ordering::Relaxed)));
            }
            assert_eq!(late.into_inner(), 0);
            round.stop();
            workers.iter().for_each(thread::Thread::unpark);
        });
    }
}
