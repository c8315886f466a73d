//! Whole runs on several machines: leader and workers in one process, over the loopback.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{folder, numbers, run};
use tern_train::checkpoint;
use tern_train::machines::leader::Leader;
use tern_train::machines::worker::Worker;
use tern_train::run::{Event, lead, train};

/// Weights and moments of a run's latest checkpoint, as they lie in it: behind the state, which has the seconds.
fn weights(out: &Path) -> Vec<u8> {
    let (_, path) = checkpoint::list(&out.join("checkpoints")).swap_remove(0);
    let bytes = std::fs::read(path).unwrap();
    let state = u64::from_le_bytes(bytes[8..16].try_into().unwrap()) as usize;
    bytes[16 + state..bytes.len() - 8].to_vec()
}

#[test]
fn one_two_and_four_machines_come_to_the_same_bits() {
    let dir = folder();
    // Not a multiple of any of them; more than one batch, so that their order counts.
    for (scales, more) in [
        ("matrix", "accumulate = 5\nsample_every = 6"),
        ("group", "accumulate = 3\nscales = \"group\"\ngroup = 32\nhidden = 64\nsteps = 4"),
        ("a4.8", "accumulate = 3\nactivations = \"a4.8\"\na8_steps = 3\nsteps = 6"),
        ("v2-a4", "accumulate = 3\nactivations = \"v2-a4\"\nsteps = 4"),
        ("float", "accumulate = 4\nternary = false\nrecompute = true\nsteps = 4"),
    ] {
        let alone = run(dir.path(), &format!("{scales}-1"), more);
        train(&alone, &|| false, &mut |_| {}).unwrap();
        let (model, want) = (weights(&alone.out), numbers(&alone.out));
        for machines in [2, 4] {
            let mut leader = Leader::listen("127.0.0.1:0".parse().unwrap(), "").unwrap();
            let address = leader.address().to_string();
            let workers: Vec<_> = (1..machines)
                .map(|threads| {
                    let (address, token) = (address.clone(), String::new());
                    let worker = Worker { address, token, threads, patience: Duration::from_secs(20) };
                    std::thread::spawn(move || worker.run(&|| false, &mut |_| {}))
                })
                .collect();
            let begun = Instant::now();
            while leader.workers() < machines - 1 {
                assert!(begun.elapsed() < Duration::from_secs(60), "no worker came");
                std::thread::sleep(Duration::from_millis(5));
            }
            let several = run(dir.path(), &format!("{scales}-{machines}"), more);
            let mut notes = Vec::new();
            let end = lead(&several, Some(&mut leader), &|| false, &mut |event| {
                if let Event::Note(note) = event {
                    notes.push(note);
                }
            });
            end.unwrap();
            assert!(weights(&several.out) == model, "{scales}, {machines} machines: other weights");
            assert_eq!(numbers(&several.out), want, "{scales}, {machines} machines");
            let batches: u64 = workers.into_iter().map(|worker| worker.join().unwrap().unwrap()).sum();
            assert!(batches > 0, "the workers computed nothing");
            let said = |what: &str| notes.iter().filter(|note| note.contains(what)).count();
            assert_eq!((said("computes too"), said(" computed ")), (machines - 1, machines - 1), "{notes:?}");
            assert_eq!(said("was lost"), 0, "{notes:?}");
        }
    }
}
