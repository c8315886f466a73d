//! Downloads one file in several ranges at a time, hashes it while it comes, and goes on where an earlier try stopped.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use ureq::Body;
use ureq::http::Response;

use crate::api::Entry;
use crate::error::{Error, Result};
use crate::http::{Hub, Try, header};
use crate::journal::Journal;

/// Bytes that are read from the network, written and noted at a time.
const BLOCK: usize = 256 << 10;

/// How often the caller is told.
const TICK: Duration = Duration::from_millis(50);

/// One file on its way.
pub(crate) struct Fetch<'a> {
    pub(crate) hub: &'a Hub,
    /// What people call it.
    pub(crate) what: String,
    /// Where it is on the Hub.
    pub(crate) path: String,
    pub(crate) entry: &'a Entry,
    /// Where it grows.
    pub(crate) part: PathBuf,
}

/// What the threads of a download share.
struct Shared {
    journal: Journal,
    /// Chunks that a thread has begun.
    taken: Vec<bool>,
    /// The server sends whole files only.
    whole: bool,
    /// No thread goes on.
    stop: bool,
    error: Option<Error>,
}

struct Lock {
    shared: Mutex<Shared>,
    came: Condvar,
}

impl Lock {
    fn get(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, error: Error) {
        let mut shared = self.get();
        shared.error.get_or_insert(error);
        shared.stop = true;
        self.came.notify_all();
    }
}

impl Fetch<'_> {
    /// The file that tells which bytes have come.
    pub(crate) fn journal(part: &Path) -> PathBuf {
        part.with_extension("tern-journal")
    }

    /// Downloads what is missing and checks the whole. `progress` is called with the bytes that are there, and stops the
    /// download by `false`.
    pub(crate) fn run(&self, progress: &mut dyn FnMut(u64) -> bool) -> Result<()> {
        let (before, mut hash) = self.once(progress)?;
        if hash != self.entry.hash.to_string() && before > 0 {
            // What an earlier try left may have been damaged, by a power cut for example.
            self.discard();
            (_, hash) = self.once(progress)?;
        }
        if hash != self.entry.hash.to_string() {
            self.discard();
            return Err(Error::Corrupt(format!(
                "{}: its bytes have the hash {hash}, and the repository names {}",
                self.what, self.entry.hash
            )));
        }
        let file = self.file()?;
        file.sync_all().map_err(Error::io(&self.part))
    }

    fn discard(&self) {
        let _ = fs::remove_file(Self::journal(&self.part));
        let _ = fs::remove_file(&self.part);
    }

    fn file(&self) -> Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.open(&self.part).map_err(Error::io(&self.part))
    }

    /// Downloads what the journal lacks; gives the bytes that were there before, and the hash of the whole file.
    fn once(&self, progress: &mut dyn FnMut(u64) -> bool) -> Result<(u64, String)> {
        let size = self.entry.size;
        let path = Self::journal(&self.part);
        let mut journal = Journal::open(&path, size, self.hub.limits.chunk).map_err(Error::io(&path))?;
        let file = self.file()?;
        // A journal without its file, or with a shorter one, tells nothing.
        if file.metadata().map_err(Error::io(&self.part))?.len() != size {
            journal.clear().map_err(Error::io(&path))?;
            file.set_len(size).map_err(Error::io(&self.part))?;
        }
        drop(file);
        let before = journal.total();
        let taken = vec![false; journal.chunks()];
        let shared = Shared { journal, taken, whole: false, stop: false, error: None };
        let lock = Lock { shared: Mutex::new(shared), came: Condvar::new() };
        thread::scope(|scope| {
            let hasher = scope.spawn(|| self.hash(&lock));
            let workers = self.hub.limits.connections.clamp(1, lock.get().taken.len().max(1));
            let workers: Vec<_> = (0..workers).map(|_| scope.spawn(|| self.work(&lock))).collect();
            let mut whole = None;
            while !hasher.is_finished() {
                if !progress(lock.get().journal.total()) {
                    lock.fail(Error::Interrupted);
                }
                let ended = workers.iter().all(|worker| worker.is_finished());
                if whole.is_none() && ended && lock.get().whole {
                    whole = Some(scope.spawn(|| self.whole(&lock)));
                }
                thread::sleep(TICK);
            }
            progress(lock.get().journal.total());
            let hash = hasher.join().expect("hashing does not panic");
            let error = lock.get().error.take();
            match (error, hash) {
                (Some(error), _) => Err(error),
                (None, hash) => Ok((before, hash?)),
            }
        })
    }

    /// Hashes the file behind those who write it.
    fn hash(&self, lock: &Lock) -> Result<String> {
        let size = self.entry.size;
        let mut hasher = self.entry.hash.hasher(size);
        let mut file = self.file()?;
        let mut buffer = vec![0; 1 << 20];
        let mut hashed = 0;
        while hashed < size {
            let frontier = {
                let mut shared = lock.get();
                while shared.journal.frontier() <= hashed {
                    if shared.stop {
                        return Err(Error::Interrupted);
                    }
                    shared = lock.came.wait(shared).unwrap_or_else(PoisonError::into_inner);
                }
                shared.journal.frontier()
            };
            while hashed < frontier {
                let block = (frontier - hashed).min(buffer.len() as u64) as usize;
                let read = file.read_exact(&mut buffer[..block]);
                if let Err(error) = read {
                    lock.fail(Error::io(&self.part)(error));
                    return Err(Error::Interrupted);
                }
                hasher.update(&buffer[..block]);
                hashed += block as u64;
            }
        }
        Ok(hasher.finish())
    }

    /// Takes chunks until none is left.
    fn work(&self, lock: &Lock) {
        let mut file = match self.file() {
            Ok(file) => file,
            Err(error) => return lock.fail(error),
        };
        loop {
            let chunk = {
                let mut shared = lock.get();
                let journal = &shared.journal;
                let open =
                    |chunk: &usize| !shared.taken[*chunk] && journal.done(*chunk) < journal.len(*chunk);
                let Some(chunk) = (0..journal.chunks()).find(open) else { return };
                shared.taken[chunk] = true;
                chunk
            };
            let start = chunk as u64 * self.hub.limits.chunk;
            let mut idle = 0;
            loop {
                let (done, len) = {
                    let shared = lock.get();
                    if shared.stop || shared.whole {
                        return;
                    }
                    (shared.journal.done(chunk), shared.journal.len(chunk))
                };
                if done == len {
                    break;
                }
                let came = self.range(lock, &mut file, chunk, start + done, start + len);
                if !self.goes_on(lock, came, &mut idle) {
                    return;
                }
            }
        }
    }

    /// After a try that brought so many bytes: waits where it brought none, gives up after several of those.
    fn goes_on(&self, lock: &Lock, came: Result<u64, (u64, Try)>, idle: &mut usize) -> bool {
        let (bytes, error) = match came {
            Ok(bytes) => (bytes, Error::Network(format!("{}: the connection brought nothing", self.what))),
            Err((_, Try::Give(error))) => {
                lock.fail(error);
                return false;
            }
            Err((bytes, Try::Again(error))) => (bytes, error),
        };
        if bytes > 0 {
            *idle = 0;
            return true;
        }
        *idle += 1;
        if *idle >= self.hub.limits.tries {
            lock.fail(error);
            return false;
        }
        thread::sleep(self.hub.limits.pause * 2_u32.pow(*idle as u32 - 1));
        true
    }

    /// One request for the bytes `from..to` of a chunk; gives how many came.
    fn range(
        &self,
        lock: &Lock,
        file: &mut File,
        chunk: usize,
        from: u64,
        to: u64,
    ) -> Result<u64, (u64, Try)> {
        let response = self.hub.get(&self.what, &self.path, Some((from, to))).map_err(|why| (0, why))?;
        self.unchanged(&response).map_err(|error| (0, Try::Give(error)))?;
        if response.status() == 200 && (from, to) != (0, self.entry.size) {
            lock.get().whole = true;
            return Ok(1);
        }
        if response.status() == 206 {
            let wanted = format!("bytes {from}-{}/{}", to - 1, self.entry.size);
            let found = header(&response, "content-range").unwrap_or("no content-range");
            if found != wanted {
                let what = format!("{}: asked for `{wanted}`, the server sent `{found}`", self.what);
                return Err((0, Try::Give(Error::Protocol(what))));
            }
        }
        file.seek(SeekFrom::Start(from)).map_err(|error| (0, Try::Give(Error::io(&self.part)(error))))?;
        self.copy(lock, response, file, 0, |_| chunk, to - from)
    }

    /// The whole file in one answer, from a server that knows no ranges. What is there already is passed over.
    fn whole(&self, lock: &Lock) {
        let mut file = match self.file() {
            Ok(file) => file,
            Err(error) => return lock.fail(error),
        };
        if let Err(error) = lock.get().journal.cut() {
            return lock.fail(Error::io(&Self::journal(&self.part))(error));
        }
        let mut idle = 0;
        loop {
            let have = lock.get().journal.frontier();
            if have == self.entry.size || lock.get().stop {
                return;
            }
            let came =
                self.hub.get(&self.what, &self.path, None).map_err(|why| (0, why)).and_then(|response| {
                    self.unchanged(&response).map_err(|error| (0, Try::Give(error)))?;
                    file.seek(SeekFrom::Start(have))
                        .map_err(|error| (0, Try::Give(Error::io(&self.part)(error))))?;
                    let chunk = |at: u64| (at / self.hub.limits.chunk) as usize;
                    self.copy(lock, response, &mut file, have, chunk, self.entry.size)
                });
            if !self.goes_on(lock, came, &mut idle) {
                return;
            }
        }
    }

    /// Writes an answer's bytes after the first `skip` into the file and into the journal; gives how many were new.
    fn copy(
        &self,
        lock: &Lock,
        response: Response<Body>,
        file: &mut File,
        skip: u64,
        chunk: impl Fn(u64) -> usize,
        len: u64,
    ) -> Result<u64, (u64, Try)> {
        let mut body = response.into_body().into_reader().take(len);
        let mut buffer = vec![0; BLOCK];
        let (mut at, mut new) = (0, 0);
        loop {
            if lock.get().stop {
                return Ok(new);
            }
            // Never across the border of two chunks, nor of what is there already.
            let room = self.hub.limits.chunk - at % self.hub.limits.chunk;
            let room = if at < skip { room.min(skip - at) } else { room };
            let wanted = room.min(BLOCK as u64) as usize;
            let read = match body.read(&mut buffer[..wanted]) {
                Ok(0) => return Ok(new),
                Ok(read) => read,
                Err(error) => {
                    let what = format!("{}: {}: {error}", self.what, self.hub.host());
                    return Err((new, Try::Again(Error::Network(what))));
                }
            };
            if at >= skip {
                file.write_all(&buffer[..read])
                    .map_err(|error| (new, Try::Give(Error::io(&self.part)(error))))?;
                let noted = lock.get().journal.add(chunk(at), read as u64);
                noted.map_err(|error| (new, Try::Give(Error::io(&Self::journal(&self.part))(error))))?;
                lock.came.notify_all();
                new += read as u64;
            }
            at += read as u64;
        }
    }

    /// An error where the answer says that it is of another file than the listing told.
    fn unchanged(&self, response: &Response<Body>) -> Result<()> {
        let wanted = self.entry.hash.to_string();
        for name in ["x-linked-etag", "etag"] {
            let tag = header(response, name).unwrap_or_default().trim_start_matches("W/").trim_matches('"');
            // Tags of another length are the storage's own and tell nothing.
            if tag.len() == wanted.len() && tag.bytes().all(|byte| byte.is_ascii_hexdigit()) && tag != wanted
            {
                return Err(Error::Corrupt(format!(
                    "{}: it was changed on the Hub since its hash was asked for",
                    self.what
                )));
            }
        }
        Ok(())
    }
}
