//! Workers that die, err and lie: the step comes to the same bits, and the reason has a name.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use tern_kernels::{Cpu, Pool};

use super::VERSION;
use super::frame::{self, Kind};
use super::job::{Job, arithmetic};
use super::leader::{Hello, Leader, Welcome};
use super::proof::{nonce, proof};
use super::worker::Worker;
use crate::corpus::Sequences;
use crate::ops::Machine;
use crate::step::{Adder, Source, Task};

fn leader() -> Leader {
    let mut leader = Leader::listen("127.0.0.1:0".parse().unwrap(), "secret").unwrap();
    leader.begin(job());
    leader
}

fn job() -> Job {
    Job::small("matrix", "relu2", true)
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// Waits until it is so.
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let end = soon();
    while !is() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Greets as a worker of this version, arithmetic and token.
fn greet(to: SocketAddr, version: &str, other: u64, token: &str) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(to)?;
    let own = nonce();
    let (one, on) = (Pool::new(1), Cpu::best());
    let arithmetic = arithmetic(Machine { cpu: on, pool: &one }) ^ other;
    let sets = vec![("old".to_owned(), arithmetic)];
    frame::send_json(&stream, Kind::Hello, &Hello { version: version.into(), sets, nonce: own.clone() })?;
    let welcome: Welcome = frame::greeting(&stream, Kind::Welcome, soon())?;
    assert_eq!(welcome.proof, proof("secret", "leader", &own, &welcome.nonce));
    frame::send_json(&stream, Kind::Proof, &proof(token, "worker", &own, &welcome.nonce))?;
    Ok(stream)
}

/// A step of three batches with these workers: the bits of its loss and its gradient, and what was noted.
fn step(leader: Option<&mut Leader>) -> (u64, Vec<u32>, Vec<String>) {
    step_of([2, 3, 4], leader)
}

/// The same with batches of these seeds.
fn step_of(seeds: [u64; 3], leader: Option<&mut Leader>) -> (u64, Vec<u32>, Vec<String>) {
    let pool = Pool::new(1);
    let on = Machine { cpu: Cpu::best(), pool: &pool };
    let (mut network, count) = job().network().unwrap();
    let (params, _) = job().numbers(count, 1);
    let batches: Vec<Sequences> = seeds.iter().map(|seed| job().numbers(0, *seed).1).collect();
    let task = Task::new(3, &params, &batches);
    let (mut notes, mut sum) = (Vec::new(), Vec::new());
    let mut note = |text| notes.push(text);
    let mut adder = Adder::default();
    let loss = match leader {
        Some(leader) => {
            let peers = leader.peers(&mut note);
            let loss = adder.run(&mut network, on, task, peers, Source::Texts, &mut sum).unwrap();
            leader.settle(3, &mut note);
            loss
        }
        None => adder
            .run::<super::leader::Peer>(&mut network, on, task, &mut [], Source::Texts, &mut sum)
            .unwrap(),
    };
    (loss.cross.to_bits(), sum.into_iter().map(f32::to_bits).collect(), notes)
}

/// Or the tests that compare bits could not fail where somebody adds gradients up as they come.
#[test]
fn another_order_of_the_batches_has_other_bits() {
    assert_ne!(step_of([2, 3, 4], None).1, step_of([4, 3, 2], None).1);
}

/// What a worker does with its first batch: it has the number of the batch and how many parameters there are.
type Deed = fn(&TcpStream, u64, usize);

#[test]
fn a_worker_lost_in_the_middle_of_a_batch_costs_nothing_but_time() {
    let (loss, gradient, _) = step(None);
    let deeds: [(Deed, &str); 6] = [
        (|_, _, _| {}, "the connection was closed"),
        (
            |stream, nth, count| {
                let begin = [(nth + 1).to_le_bytes(), [0; 8]].concat();
                // The leader may hang up at the number or the length already, before the rest is sent.
                let _ = frame::send(stream, Kind::Gradient, &begin, &vec![0.0; count]);
            },
            "the gradient of another batch",
        ),
        (
            |stream, nth, count| {
                let begin = [nth.to_le_bytes(), [0; 8]].concat();
                let _ = frame::send(stream, Kind::Gradient, &begin, &vec![0.0; count + 1]);
            },
            "expected",
        ),
        (|stream, _, _| frame::send(stream, Kind::Weights, &[], &[]).unwrap(), "out of turn: Weights"),
        (
            |mut stream, _, _| stream.write_all(b"no message of this kind").unwrap(),
            "does not speak as a Tern that trains",
        ),
        (|stream, _, _| frame::send_json(stream, Kind::Refused, &"too hot\n").unwrap(), "too hot"),
    ];
    for (deed, wanted) in deeds {
        let mut leader = leader();
        let stream = greet(leader.address(), VERSION, 0, "secret").unwrap();
        let bad = std::thread::spawn(move || {
            let end = soon();
            let _: Job = frame::greeting(&stream, Kind::Job, end).unwrap();
            let weights = frame::next(&stream).unwrap();
            let count = weights.len / 4 - 2;
            let step: [u8; 8] = weights.numbers(&mut vec![0.0; count]).unwrap();
            assert_eq!(u64::from_le_bytes(step), 3);
            let batch = frame::next(&stream).unwrap();
            assert_eq!(batch.kind, Kind::Batch);
            let body = batch.bytes(1 << 20).unwrap();
            deed(&stream, u64::from_le_bytes(body[..8].try_into().unwrap()), count);
        });
        until("the worker is let in", || leader.workers() == 1);
        let found = step(Some(&mut leader));
        bad.join().unwrap();
        assert!((found.0, &found.1) == (loss, &gradient), "{wanted}: other bits");
        assert!(found.2[0].contains("computes too: 2 machines"), "{:?}", found.2);
        let lost = &found.2[1];
        assert!(lost.contains("was lost in step 3 after 0 batches") && lost.contains(wanted), "{lost}");
        assert!(lost.ends_with("1 machine left") && !lost.contains('\n'), "{lost}");
        assert_eq!(leader.workers(), 0);
    }
}

#[test]
fn a_worker_that_hangs_in_the_middle_of_a_batch_is_lost_after_a_silence() {
    let (loss, gradient, _) = step(None);
    let address = "127.0.0.1:0".parse().unwrap();
    let mut leader = Leader::patient(address, "secret", Duration::from_millis(300)).unwrap();
    leader.begin(job());
    let mut stream = greet(leader.address(), VERSION, 0, "secret").unwrap();
    // It takes all that it is sent and never answers.
    let hangs = std::thread::spawn(move || stream.read_to_end(&mut Vec::new()));
    until("the worker is let in", || leader.workers() == 1);
    let found = step(Some(&mut leader));
    assert!((found.0, &found.1) == (loss, &gradient));
    let lost = &found.2[1];
    assert!(lost.contains("was lost in step 3 after 0 batches"), "{lost}");
    assert!(lost.contains("it is silent"), "{lost}");
    assert_eq!(leader.workers(), 0);
    let _ = hangs.join().unwrap();
}

#[test]
fn an_honest_worker_has_a_share_and_the_bits_are_the_same() {
    let (loss, gradient, _) = step(None);
    let mut leader = leader();
    let address = leader.address().to_string();
    let workers: Vec<_> = [1, 2]
        .into_iter()
        .map(|threads| {
            let patience = Duration::from_secs(5);
            let worker = Worker { address: address.clone(), token: "secret".into(), threads, patience };
            std::thread::spawn(move || worker.run(&|| false, &mut |_| {}))
        })
        .collect();
    until("both are let in", || leader.workers() == 2);
    let found = step(Some(&mut leader));
    assert!((found.0, &found.1) == (loss, &gradient));
    leader.finish(&mut |_| {});
    for worker in workers {
        assert_eq!(worker.join().unwrap().unwrap(), 1, "three batches, three machines");
    }
}

#[test]
fn who_is_another_is_refused_by_name_and_the_step_goes_on() {
    let (loss, gradient, _) = step(None);
    let mut leader = leader();
    let to = leader.address();
    let end = |stream: std::io::Result<TcpStream>| {
        let refused = stream.and_then(|stream| frame::greeting::<Job>(&stream, Kind::Job, soon()));
        refused.err().unwrap().to_string()
    };
    let wanted = [
        (end(greet(to, "0.0.1", 0, "secret")), "the worker is Tern 0.0.1, the leader "),
        (
            end(greet(to, VERSION, 1, "secret")),
            "none of the worker's instruction sets (old) computes the bits of the leader's ",
        ),
        (end(greet(to, VERSION, 0, "guess")), "the worker's token is not the leader's"),
    ];
    for (said, wanted) in &wanted {
        assert!(said.contains(wanted), "{said}");
    }
    // Who says nothing that can be read hears nothing.
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..],
        &[0xff; 64],
        b"Trn1\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.write_all(bytes).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    }
    drop(TcpStream::connect(to).unwrap());
    let mut notes = Vec::new();
    until("seven are refused", || {
        leader.peers(&mut |note| notes.push(note));
        notes.len() == 7
    });
    let all = notes.join("\n");
    for wanted in wanted.iter().map(|(_, wanted)| *wanted).chain([
        "does not speak as a Tern that trains",
        "a message of kind",
        "the connection was closed",
    ]) {
        assert!(all.contains(wanted), "{wanted}: {all}");
    }
    let found = step(Some(&mut leader));
    assert!((found.0, &found.1) == (loss, &gradient) && found.2.is_empty(), "{:?}", found.2);
}

#[test]
fn a_worker_says_at_once_what_will_not_mend() {
    let leader = leader();
    let worker = |address: String, token: &str| Worker {
        address,
        token: token.to_owned(),
        threads: 1,
        patience: Duration::ZERO,
    };
    let run = |worker: Worker| worker.run(&|| false, &mut |_| {}).unwrap_err().to_string();
    let other = run(worker(leader.address().to_string(), "guess"));
    assert!(other.contains("token is"), "{other}");
    let address = leader.address();
    drop(leader);
    let nobody = run(worker(address.to_string(), "secret"));
    assert!(nobody.contains("no leader for 0 seconds"), "{nobody}");
    // Another program's port.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let other = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"SSH-2.0-OpenSSH_9.6\r\n").unwrap();
        let _ = stream.read(&mut [0; 512]);
    });
    let error = run(worker(address.to_string(), "secret"));
    assert!(error.contains("does not speak as a Tern that trains"), "{error}");
    other.join().unwrap();
    let open = Leader::listen("0.0.0.0:0".parse().unwrap(), "").unwrap_err().to_string();
    assert!(open.contains("expected a token"), "{open}");
}
