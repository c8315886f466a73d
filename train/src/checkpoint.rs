//! Checkpoints: everything a run needs to go on as if it had not stopped. One file each, `step-000001200.tern`: written aside,
//! synced, renamed; a checksum at its end says that it is whole.
//!
//! ```text
//! "TernTrn1"   u64: length of the JSON   JSON (State)   parameters, first and second moments (f32)   u64: checksum
//! ```

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::corpus::Place;
use crate::error::{Error, Result};
use crate::sum::Summing;

const MAGIC: [u8; 8] = *b"TernTrn1";
/// Far above any.
const MAX_JSON: u64 = 1 << 20;

/// The small part of a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Steps done.
    pub step: u64,
    /// Tokens seen.
    pub tokens: u64,
    /// Where the data goes on.
    pub place: Place,
    /// Parameters, by which a checkpoint of another model is known.
    pub params: usize,
    /// Seconds spent training.
    pub seconds: f64,
    /// The best figure so far of those that early stopping watches: the least validation loss, or the most of a task.
    pub best: Option<f64>,
    /// How many such figures have come since.
    #[serde(default)]
    pub since: u64,
}

/// The large part: parameters, moments.
pub type Buffers<'a> = [&'a mut Vec<f32>; 3];

fn name(step: u64) -> String {
    format!("step-{step:09}.tern")
}

/// Finished checkpoints of a directory, the latest first.
pub fn list(dir: &Path) -> Vec<(u64, PathBuf)> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let digits = name.to_str()?.strip_prefix("step-")?.strip_suffix(".tern")?;
            Some((digits.parse().ok()?, entry.path()))
        })
        .collect();
    found.sort_by(|a, b| b.cmp(a));
    found
}

/// Writes a checkpoint and removes all but the `keep` latest.
pub fn save(dir: &Path, state: &State, buffers: [&[f32]; 3], keep: usize) -> Result<PathBuf> {
    std::fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
    let path = dir.join(name(state.step));
    let aside = dir.join(format!("{}.part", name(state.step)));
    let written = write(&aside, state, buffers).and_then(|()| std::fs::rename(&aside, &path));
    if let Err(e) = written {
        // A full disk has room again; the checkpoints before this one stay.
        let _ = std::fs::remove_file(&aside);
        return Err(Error::file(&path, format!("cannot save: {e}; the checkpoints before it are whole")));
    }
    // The new name itself must reach the disk before older ones go.
    #[cfg(unix)]
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| Error::io(dir, e))?;
    for (_, old) in list(dir).into_iter().skip(keep) {
        std::fs::remove_file(&old).map_err(|e| Error::io(&old, e))?;
    }
    Ok(path)
}

fn write(path: &Path, state: &State, buffers: [&[f32]; 3]) -> io::Result<()> {
    let mut out = Summing::new(BufWriter::with_capacity(1 << 20, File::create(path)?));
    let json = serde_json::to_vec(state).expect("a state is JSON");
    out.put(&MAGIC)?;
    out.put(&(json.len() as u64).to_le_bytes())?;
    out.put(&json)?;
    buffers.into_iter().try_for_each(|buffer| out.put_floats(buffer))?;
    let sum = out.sum;
    out.inner.write_all(&sum.to_le_bytes())?;
    out.inner.flush()?;
    out.inner.get_ref().sync_all()
}

/// The latest whole checkpoint of a directory, read into the buffers; `None` if there is none at all. `note` hears of broken
/// ones. Remains of saves that were cut off are removed.
pub fn latest(dir: &Path, mut buffers: Buffers, note: &mut dyn FnMut(String)) -> Result<Option<State>> {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("step-") && name.to_string_lossy().ends_with(".part") {
            std::fs::remove_file(entry.path()).map_err(|e| Error::io(&entry.path(), e))?;
        }
    }
    let all = list(dir);
    for (_, path) in &all {
        match read(path, &mut buffers) {
            Ok(state) => return Ok(Some(state)),
            Err(Error::Engine(tern::Error::File { path, what })) => {
                note(format!("{}: {what}; trying the one before", path.display()))
            }
            Err(e) => return Err(e),
        }
    }
    match all.len() {
        0 => Ok(None),
        // To begin anew is for a person to decide.
        count => Err(Error::file(
            dir,
            format!("none of the {count} checkpoints is whole; remove them to begin anew"),
        )),
    }
}

/// Reads one checkpoint.
pub fn read(path: &Path, buffers: &mut Buffers) -> Result<State> {
    let broken = |what: &str| Error::file(path, format!("is no whole checkpoint: {what}"));
    let io = |e: io::Error| match e.kind() {
        io::ErrorKind::UnexpectedEof => broken("it is cut short"),
        _ => Error::io(path, e),
    };
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut input = Summing::new(BufReader::with_capacity(1 << 20, file));
    let mut word = [0; 8];
    input.take(&mut word).map_err(io)?;
    if word != MAGIC {
        return Err(broken("its beginning is another file's"));
    }
    input.take(&mut word).map_err(io)?;
    let len = u64::from_le_bytes(word);
    if len > MAX_JSON {
        return Err(broken("its header has no length that can be"));
    }
    let mut json = vec![0; len as usize];
    input.take(&mut json).map_err(io)?;
    let state: State = serde_json::from_slice(&json).map_err(|_| broken("its header cannot be read"))?;
    if buffers.iter().any(|buffer| buffer.len() != state.params) {
        let what = format!("of a model of {} parameters, expected {}", state.params, buffers[0].len());
        return Err(Error::Input(format!("{}: {what}", path.display())));
    }
    buffers.iter_mut().try_for_each(|buffer| input.take_floats(buffer)).map_err(io)?;
    let sum = input.sum;
    input.inner.read_exact(&mut word).map_err(io)?;
    if u64::from_le_bytes(word) != sum || input.inner.read(&mut [0]).map_err(io)? != 0 {
        return Err(broken("its checksum is wrong"));
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(step: u64) -> State {
        let place = Place { epoch: 1, sequence: 2 };
        State { step, tokens: 5, place, params: 3, seconds: 0.1, best: Some(1.0 / 3.0), since: 2 }
    }

    #[test]
    fn what_is_saved_is_read_and_the_last_ones_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let numbers = [[1.0, -0.0, 3.5], [1e-40, 2.0, 0.1], [7.0, 8.0, 9.0]];
        for step in 1..=5 {
            save(dir.path(), &state(step), numbers.each_ref().map(|n| &n[..]), 2).unwrap();
        }
        assert_eq!(list(dir.path()).iter().map(|(step, _)| *step).collect::<Vec<_>>(), [5, 4]);
        let mut got = [vec![0f32; 3], vec![0.0; 3], vec![0.0; 3]];
        let read = latest(dir.path(), got.each_mut(), &mut |_| {}).unwrap().unwrap();
        assert_eq!(read, state(5));
        assert_eq!(
            got.map(|n| n.iter().map(|x| x.to_bits()).collect::<Vec<_>>()),
            numbers.map(|n| n.map(f32::to_bits).to_vec())
        );
    }

    #[test]
    fn a_broken_checkpoint_is_seen_wherever_it_is_broken_and_the_one_before_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let numbers = [[1.0f32, 2.0, 3.0]; 3];
        save(dir.path(), &state(1), numbers.each_ref().map(|n| &n[..]), 3).unwrap();
        let path = save(dir.path(), &state(2), numbers.each_ref().map(|n| &n[..]), 3).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let mut got = [vec![0f32; 3], vec![0.0; 3], vec![0.0; 3]];
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] ^= 4;
            for bytes in [&broken[..], &whole[..at]] {
                std::fs::write(&path, bytes).unwrap();
                let read = latest(dir.path(), got.each_mut(), &mut |_| {});
                // A header that still reads may speak of another model.
                assert!(
                    read.as_ref().map_or(true, |state| state.as_ref().unwrap().step == 1),
                    "{at}: {read:?}"
                );
            }
        }
        std::fs::write(dir.path().join("step-000000009.tern.part"), "x").unwrap();
        std::fs::write(&path, &whole).unwrap();
        assert_eq!(latest(dir.path(), got.each_mut(), &mut |_| {}).unwrap().unwrap().step, 2);
        assert!(!dir.path().join("step-000000009.tern.part").exists());
    }
}
