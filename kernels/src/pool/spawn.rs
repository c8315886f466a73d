//! Where the threads of a pool come from: the system; in WebAssembly the page, whose workers offer themselves by [`help`].

#[cfg(not(target_family = "wasm"))]
mod place {
    use std::thread::{Builder, JoinHandle};

    /// A thread that works until its work ends.
    pub(in super::super) struct Worker(JoinHandle<()>);

    /// Starts one; `None` where the system gives no more.
    pub(in super::super) fn spawn(name: String, work: impl FnOnce() + Send + 'static) -> Option<Worker> {
        Builder::new().name(name).spawn(work).ok().map(Worker)
    }

    impl Worker {
        pub(in super::super) fn unpark(&self) {
            self.0.thread().unpark();
        }

        /// Waits for its end.
        pub(in super::super) fn join(self) {
            // A worker catches the panics of its jobs; there is nothing to be learned from its end.
            let _ = self.0.join();
        }
    }

    /// Makes the calling thread a worker of a pool that wants one, for as long as that pool lives. Only in WebAssembly does a pool
    /// want threads that it did not start: elsewhere this returns at once.
    pub fn help() {}
}

#[cfg(target_family = "wasm")]
mod place {
    use std::collections::VecDeque;
    use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
    use std::thread::{self, Thread};

    type Work = Box<dyn FnOnce() + Send>;

    /// Work that waits for a thread, and what those sleep on who wait for work.
    static WANTED: Mutex<VecDeque<Work>> = Mutex::new(VecDeque::new());
    static COME: Condvar = Condvar::new();

    /// A thread that works until its work ends, once it is there.
    pub(in super::super) struct Worker(Arc<OnceLock<Thread>>);

    /// Asks for one; until it comes, a round is done without it. `None` where this module was not built to share its memory.
    pub(in super::super) fn spawn(_: String, work: impl FnOnce() + Send + 'static) -> Option<Worker> {
        if !cfg!(target_feature = "atomics") {
            return None;
        }
        let worker = Worker(Arc::default());
        let here = worker.0.clone();
        let work = Box::new(move || {
            let _ = here.set(thread::current());
            work();
        });
        WANTED.lock().unwrap_or_else(PoisonError::into_inner).push_back(work);
        COME.notify_one();
        Some(worker)
    }

    impl Worker {
        pub(in super::super) fn unpark(&self) {
            if let Some(thread) = self.0.get() {
                thread.unpark();
            }
        }

        /// Does not wait: the thread is the page's, and goes back to it.
        pub(in super::super) fn join(self) {}
    }

    /// Makes the calling thread a worker of a pool that wants one, for as long as that pool lives; waits until one does.
    pub fn help() {
        let mut wanted = WANTED.lock().unwrap_or_else(PoisonError::into_inner);
        let work = loop {
            match wanted.pop_front() {
                Some(work) => break work,
                None => wanted = COME.wait(wanted).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(wanted);
        work();
    }
}

pub use place::help;
pub(super) use place::{Worker, spawn};
