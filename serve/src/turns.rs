//! Work that takes its time, such as reading a large body or a long prompt: so much of it at once, of one owner no more than a
//! part of that, and the client that came less often is next. Beside others, an owner whose work took a second rests for a second for
//! each of them: nobody has more than an equal part of the time. It runs at low priority: the model's threads, and
//! those that write answers, do not share the processor with it in equal parts.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::limits::LOOK;

/// How long an owner without work is still one of those who share.
const LINGER: Duration = Duration::from_secs(1);

/// Places for such work.
#[derive(Debug)]
pub(crate) struct Turns(Mutex<State>);

#[derive(Debug)]
struct State {
    free: usize,
    /// Places that one owner may have.
    each: usize,
    /// The longest rest.
    rest: Duration,
    owners: HashMap<u64, Owner>,
    /// Owners in the order in which they are next, and who waits for each.
    waiting: VecDeque<(u64, VecDeque<oneshot::Sender<Turn>>)>,
}

/// One who had work a moment ago.
#[derive(Debug)]
struct Owner {
    running: usize,
    /// Until when it has no further turn.
    rests: Instant,
    last: Instant,
}

impl State {
    fn may(&self, owner: u64) -> bool {
        let may = |known: &Owner| known.running < self.each && known.rests <= Instant::now();
        self.free > 0 && self.owners.get(&owner).is_none_or(may)
    }

    fn begin(&mut self, owner: u64) {
        self.free -= 1;
        let now = Instant::now();
        let known = self.owners.entry(owner).or_insert(Owner { running: 0, rests: now, last: now });
        known.running += 1;
    }

    fn end(&mut self, owner: u64, took: Duration) {
        self.free += 1;
        let now = Instant::now();
        self.owners.retain(|_, known| known.running > 0 || now < known.rests.max(known.last + LINGER));
        let others = self.owners.len() as u32 - 1;
        if let Some(known) = self.owners.get_mut(&owner) {
            known.running -= 1;
            known.last = now;
            known.rests = (known.rests.max(now) + took * others).min(now + self.rest);
        }
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
    began: Instant,
}

impl Turns {
    pub(crate) fn new(places: usize, each: usize, rest: Duration) -> Arc<Self> {
        let (owners, waiting) = (HashMap::new(), VecDeque::new());
        Arc::new(Self(Mutex::new(State { free: places, each, rest, owners, waiting })))
    }

    /// Waits for a place.
    pub(crate) async fn take(self: &Arc<Self>, owner: u64) -> Turn {
        let mut waiting = {
            let mut state = self.state();
            if state.may(owner) {
                state.begin(owner);
                return self.turn(owner);
            }
            let (sender, waiting) = oneshot::channel();
            match state.waiting.iter_mut().find(|(other, _)| *other == owner) {
                Some((_, list)) => list.push_back(sender),
                None => state.waiting.push_back((owner, VecDeque::from([sender]))),
            }
            waiting
        };
        loop {
            match timeout(LOOK, &mut waiting).await {
                Ok(Ok(turn)) => return turn,
                Ok(Err(_)) => unreachable!("a sender is dropped only where its receiver was"),
                Err(_) => self.hand_out(),
            }
        }
    }

    fn turn(self: &Arc<Self>, owner: u64) -> Turn {
        Turn { turns: self.clone(), owner, began: Instant::now() }
    }

    /// Gives free places to those who wait for one and may have it.
    fn hand_out(self: &Arc<Self>) {
        loop {
            let next = self.state().next();
            let Some((owner, sender)) = next else { return };
            // If it has left in this moment, the turn comes back, and is dropped for the one after it.
            drop(sender.send(self.turn(owner)));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.state().end(self.owner, self.began.elapsed());
        self.turns.hand_out();
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
    use crate::limits::REST;

    /// Polls once.
    fn ready<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match future.poll(&mut context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        }
    }

    /// One who waits looks at the clock.
    fn clock() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
    }

    #[test]
    fn nobody_gets_all_and_owners_take_turns() {
        let clock = clock();
        let _clock = clock.enter();
        let turns = Turns::new(3, 2, Duration::ZERO);
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
        let running: usize = state.owners.values().map(|owner| owner.running).sum();
        assert_eq!((state.free, running, state.waiting.len()), (3, 0, 0));
    }

    #[test]
    fn a_rest_outlasts_the_work_of_others() {
        let turns = Turns::new(3, 2, REST);
        let mut state = turns.state();
        [1, 2].into_iter().for_each(|owner| state.begin(owner));
        state.end(1, 2 * LINGER);
        state.end(2, Duration::ZERO);
        assert!(!state.may(1) && state.may(2));
    }

    #[test]
    fn who_worked_long_rests_where_others_are() {
        clock().block_on(async {
            let turns = Turns::new(3, 2, REST);
            let begin = Instant::now();
            let work = Duration::from_millis(60);
            let long = async |owner: u64| {
                let turn = turns.take(owner).await;
                std::thread::sleep(work);
                drop(turn);
            };
            for _ in 0..2 {
                long(1).await;
            }
            assert!(begin.elapsed() < work * 3, "alone it goes on at once");
            drop((turns.take(2).await, turns.take(3).await));
            long(1).await;
            let rests = Instant::now();
            drop(turns.take(2).await);
            assert!(rests.elapsed() < work, "others need not wait for it");
            drop(turns.take(1).await);
            assert!(rests.elapsed() >= work * 2, "a rest for each of the two others");
        });
    }
}
