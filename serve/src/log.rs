//! What the server says about itself: entries wait in a bounded queue, and a thread of its own writes them.
//!
//! Whoever reads a log may stand still, and a disk may be full. Neither may hold up a request: what finds the queue
//! full is dropped and counted, and the log says how much is missing as soon as it flows again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::limits::LOG_LINES;

/// A log; clones write to the same one. The default writes nothing.
#[derive(Clone, Default)]
pub struct Log(Option<Arc<Queue>>);

struct Queue {
    entries: SyncSender<Value>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    /// Entries that were not yet written.
    waiting: AtomicUsize,
    dropped: AtomicU64,
}

impl Log {
    /// Writes each entry, a JSON object, with this; it may take its time.
    pub fn new(mut write: impl FnMut(&Value) -> io::Result<()> + Send + 'static) -> Self {
        let (entries, queue) = sync_channel::<Value>(LOG_LINES);
        let counts = Arc::new(Counts::default());
        let shared = counts.clone();
        let writes = move || {
            let mut told = 0;
            for entry in queue {
                let dropped = shared.dropped.load(Ordering::Relaxed);
                if dropped > told {
                    let missing = json!({"time": now(), "event": "dropped", "lines": dropped - told});
                    if write(&missing).is_ok() {
                        told = dropped;
                    }
                }
                if write(&entry).is_err() {
                    shared.dropped.fetch_add(1, Ordering::Relaxed);
                }
                shared.waiting.fetch_sub(1, Ordering::Relaxed);
            }
        };
        // Without its thread nothing takes entries out: all are dropped and counted.
        let _ = std::thread::Builder::new().name("tern-log".to_owned()).spawn(writes);
        Self(Some(Arc::new(Queue { entries, counts })))
    }

    /// Adds an entry and returns at once.
    pub fn tell(&self, entry: Value) {
        let Some(Queue { entries, counts }) = self.0.as_deref() else { return };
        counts.waiting.fetch_add(1, Ordering::Relaxed);
        if entries.try_send(entry).is_err() {
            counts.waiting.fetch_sub(1, Ordering::Relaxed);
            counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Adds an entry about something that happened.
    pub fn event(&self, name: &str, mut entry: Value) {
        entry["time"] = now();
        entry["event"] = name.into();
        self.tell(entry);
    }

    /// Waits until all is written, but not for longer than this.
    pub fn settle(&self, most: Duration) {
        let start = Instant::now();
        let Some(Queue { counts, .. }) = self.0.as_deref() else { return };
        while counts.waiting.load(Ordering::Relaxed) > 0 && start.elapsed() < most {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Lines that were not written.
    pub(crate) fn dropped(&self) -> u64 {
        self.0.as_deref().map_or(0, |queue| queue.counts.dropped.load(Ordering::Relaxed))
    }
}

/// Seconds since 1970, with thousandths.
pub(crate) fn now() -> Value {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    json!(since.as_millis() as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn a_reader_that_stands_still_costs_lines_and_nothing_else() {
        let (lines, gate) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(())));
        let (sink, shut) = (lines.clone(), gate.clone());
        let closed = gate.lock().unwrap();
        let log = Log::new(move |entry| {
            drop(shut.lock().unwrap());
            sink.lock().unwrap().push(entry.clone());
            Ok(())
        });
        // It would hang here if it waited for the writer.
        for n in 0..LOG_LINES + 100 {
            log.tell(json!({"n": n}));
        }
        let dropped = log.dropped();
        assert!((99..=100).contains(&dropped), "{dropped}: the thread may hold one more");
        log.settle(Duration::from_millis(10));
        drop(closed);
        log.settle(Duration::from_secs(60));
        let lines = lines.lock().unwrap();
        assert_eq!(lines.len() as u64, LOG_LINES as u64 + 100 - dropped + 1);
        let said: Vec<_> = lines.iter().filter(|line| line["event"] == "dropped").collect();
        assert_eq!((said.len(), &said[0]["lines"]), (1, &json!(dropped)));
    }

    #[test]
    fn a_full_disk_costs_lines_and_is_told_when_there_is_room_again() {
        let (lines, full) =
            (Arc::new(Mutex::new(Vec::new())), Arc::new(std::sync::atomic::AtomicBool::new(true)));
        let (sink, state) = (lines.clone(), full.clone());
        let log = Log::new(move |entry| {
            if state.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            sink.lock().unwrap().push(entry.clone());
            Ok(())
        });
        (0..3).for_each(|n| log.tell(json!({"n": n})));
        log.settle(Duration::from_secs(60));
        assert_eq!(log.dropped(), 3);
        full.store(false, Ordering::Relaxed);
        log.tell(json!({"n": 3}));
        log.settle(Duration::from_secs(60));
        let lines = lines.lock().unwrap();
        assert_eq!((lines.len(), &lines[0]["lines"], &lines[1]["n"]), (2, &json!(3), &json!(3)));
    }
}
