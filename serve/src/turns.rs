//! Work that takes its time, such as reading a large body or a long prompt: so much of it at once, of one owner no more than a
//! part of that, and the client that came less often is next. It runs at low priority: the model's threads, and
//! those that write answers, do not share the processor with it in equal parts.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::oneshot;

/// Places for such work.
#[derive(Debug)]
pub(crate) struct Turns(Mutex<State>);

#[derive(Debug)]
struct State {
    free: usize,
    /// Places that one owner may have.
    each: usize,
    running: HashMap<u64, usize>,
    /// Owners in the order in which they are next, and who waits for each.
    waiting: VecDeque<(u64, VecDeque<oneshot::Sender<Turn>>)>,
}

impl State {
    fn may(&self, owner: u64) -> bool {
        self.free > 0 && self.running.get(&owner).copied().unwrap_or(0) < self.each
    }

    fn begin(&mut self, owner: u64) {
        self.free -= 1;
        *self.running.entry(owner).or_default() += 1;
    }

    /// The next one that may begin, and still waits.
    fn next(&mut self) -> Option<(u64, oneshot::Sender<Turn>)> {
        loop {
            let at = (0..self.waiting.len()).find(|at| self.may(self.waiting[*at].0))?;
            let (owner, mut list) = self.waiting.remove(at)?;
            let first = list.pop_front();
            if !list.is_empty() {
                self.waiting.push_back((owner, list));
            }
            if let Some(first) = first.filter(|first| !first.is_closed()) {
                self.begin(owner);
                return Some((owner, first));
            }
        }
    }
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Arc<Turns>,
    owner: u64,
}

impl Turns {
    pub(crate) fn new(places: usize, each: usize) -> Arc<Self> {
        let (running, waiting) = (HashMap::new(), VecDeque::new());
        Arc::new(Self(Mutex::new(State { free: places, each, running, waiting })))
    }

    /// Waits for a place.
    pub(crate) async fn take(self: &Arc<Self>, owner: u64) -> Turn {
        let waiting = {
            let mut state = self.state();
            if state.may(owner) {
                state.begin(owner);
                return Turn { turns: self.clone(), owner };
            }
            let (sender, waiting) = oneshot::channel();
            match state.waiting.iter_mut().find(|(other, _)| *other == owner) {
                Some((_, list)) => list.push_back(sender),
                None => state.waiting.push_back((owner, VecDeque::from([sender]))),
            }
            waiting
        };
        match waiting.await {
            Ok(turn) => turn,
            Err(_) => unreachable!("a sender is dropped only where its receiver was"),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let next = {
            let mut state = self.turns.state();
            state.free += 1;
            if let Some(count) = state.running.get_mut(&self.owner) {
                *count -= 1;
                if *count == 0 {
                    state.running.remove(&self.owner);
                }
            }
            state.next()
        };
        if let Some((owner, sender)) = next {
            // If it has left in this moment, the turn comes back, and is dropped for the one after it.
            drop(sender.send(Self { turns: self.turns.clone(), owner }));
        }
    }
}

/// Lets the work of this thread, and of those that it starts, wait for other work where both want the processor.
pub(crate) fn at_low_priority() {
    #[cfg(target_os = "linux")]
    {
        thread_local! {
            static SET: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
        }
        if !SET.replace(true) {
            // Linux counts a thread as the process that the call means.
            let _ = rustix::process::setpriority_process(None, NICE);
        }
    }
}

/// How nice such work is: it gets a tenth of a core that the model wants, too.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    /// Polls once.
    fn ready<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match future.poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }

    #[test]
    fn nobody_gets_all_and_owners_take_turns() {
        let turns = Turns::new(3, 2);
        let (mut one, mut two) = (pin!(turns.take(7)), pin!(turns.take(7)));
        let (one, two) = (ready(one.as_mut()).unwrap(), ready(two.as_mut()).unwrap());
        let mut third = pin!(turns.take(7));
        assert!(ready(third.as_mut()).is_none(), "a place is left, but not for this owner");
        let mut gone = Box::pin(turns.take(7));
        assert!(ready(gone.as_mut()).is_none());
        let mut fifth = pin!(turns.take(7));
        assert!(ready(fifth.as_mut()).is_none());
        let mut other = pin!(turns.take(8));
        let other = ready(other.as_mut()).unwrap();
        let mut waits = pin!(turns.take(9));
        assert!(ready(waits.as_mut()).is_none());
        drop(gone);
        drop(one);
        let third = ready(third.as_mut()).unwrap();
        drop(two);
        // Owner 9 waited for less long, but 7 had its turn.
        let waits = ready(waits.as_mut()).unwrap();
        assert!(ready(fifth.as_mut()).is_none());
        drop(other);
        let fifth = ready(fifth.as_mut()).unwrap();
        drop((third, fifth, waits));
        let state = turns.state();
        assert_eq!((state.free, state.running.len(), state.waiting.len()), (3, 0, 0));
    }
}
