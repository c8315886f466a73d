//! Downloads from a Hub with faults: the right file, or an error that says what was wrong and nothing under the final name.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Access, COMMIT, Fake, Fault, noise, sha256};
use tern_hub::{Cache, Error, Hub, Limits, Name, Plan};

const REPO: &str = "org/model-gguf";

/// Two chunks and a half.
const SIZE: usize = 5 << 20;

fn limits() -> Limits {
    Limits {
        stall: Duration::from_secs(20),
        tries: 3,
        pause: Duration::from_millis(5),
        connections: 4,
        chunk: 2 << 20,
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

struct Place {
    fake: Fake,
    home: tempfile::TempDir,
}

impl Place {
    fn new(files: &[(&str, Vec<u8>)]) -> Self {
        let fake = Fake::start();
        fake.add(REPO, files);
        Self { fake, home: tempfile::tempdir().unwrap() }
    }

    fn cache(&self) -> Cache {
        Cache::new(self.home.path())
    }

    fn pull_with(&self, token: Option<&str>, repo: &str) -> Result<PathBuf, Error> {
        self.pull_within(limits(), token, repo)
    }

    fn pull_within(&self, limits: Limits, token: Option<&str>, repo: &str) -> Result<PathBuf, Error> {
        let hub = Hub::new(&self.fake.endpoint, token.map(str::to_owned), limits)?;
        let plan = Plan::new(&hub, &self.cache(), &name(repo))?;
        plan.run(&hub, &self.cache(), &mut |_| true)
    }

    fn pull(&self) -> Result<PathBuf, Error> {
        self.pull_with(None, REPO)
    }

    /// Stops when so many bytes are there.
    fn pull_until(&self, bytes: u64) -> Result<PathBuf, Error> {
        let hub = Hub::new(&self.fake.endpoint, None, limits())?;
        let plan = Plan::new(&hub, &self.cache(), &name(REPO))?;
        plan.run(&hub, &self.cache(), &mut |progress| progress.done < bytes)
    }

    /// Files under their final names: blobs and snapshots.
    fn finished(&self) -> Vec<String> {
        fn walk(folder: &Path, into: &mut Vec<String>) {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let path = entry.path();
                let text = path.display().to_string();
                if fs::symlink_metadata(&path).unwrap().is_dir() {
                    walk(&path, into);
                } else if !text.contains(".tern-") && !text.contains(".locks") {
                    into.push(text);
                }
            }
        }
        let mut all = Vec::new();
        walk(self.home.path(), &mut all);
        all
    }
}

#[test]
fn a_file_comes_whole_into_the_shared_cache_and_only_once() {
    let bytes = noise(SIZE, 1);
    let place = Place::new(&[("model.gguf", bytes.clone()), ("README.md", b"# hello".to_vec())]);
    assert_eq!(place.cache().find(&name(REPO)), None);
    let path = place.pull().unwrap();
    assert!(fs::read(&path).unwrap() == bytes);
    let repo = place.home.path().join("models--org--model-gguf");
    assert_eq!(path, repo.join("snapshots").join(COMMIT).join("model.gguf"));
    assert_eq!(fs::read_to_string(repo.join("refs/main")).unwrap(), COMMIT);
    assert!(repo.join("blobs").join(sha256(&bytes)).is_file());
    assert_eq!(place.fake.sent(), SIZE as u64, "each byte came once, and no other file");
    assert_eq!(place.pull().unwrap(), path);
    assert_eq!(place.fake.sent(), 0, "nothing comes twice");
    assert_eq!(place.cache().find(&name(REPO)), Some(path), "found without the network");
    let freed = place.cache().remove(REPO).unwrap();
    assert_eq!((freed, place.cache().find(&name(REPO))), (SIZE as u64, None));
}

#[test]
fn a_checkpoint_is_its_configuration_tokenizer_and_weights() {
    let weights = noise(3 << 20, 2);
    let index = br#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
    let place = Place::new(&[
        ("config.json", b"{}".to_vec()),
        ("tokenizer.json", noise(70_000, 3)),
        ("model.safetensors.index.json", index.to_vec()),
        ("model-1.safetensors", weights.clone()),
        ("model-2.safetensors", noise(100, 4)),
        ("pytorch_model.bin", noise(1000, 5)),
        ("empty.txt", Vec::new()),
    ]);
    let folder = place.pull().unwrap();
    assert!(fs::read(folder.join("model-1.safetensors")).unwrap() == weights);
    assert!(!folder.join("pytorch_model.bin").exists());
    assert_eq!(place.cache().find(&name(REPO)), Some(folder.clone()));
    fs::remove_file(folder.join("model-2.safetensors")).unwrap();
    assert_eq!(place.cache().find(&name(REPO)), None, "a shard is missing");
}

#[test]
fn what_was_stopped_goes_on_where_it_stopped() {
    let bytes = noise(SIZE, 6);
    let place = Place::new(&[("model.gguf", bytes.clone())]);
    place.fake.with(REPO, |repo| repo.speed = 6 << 20);
    let mut sent = 0;
    for part in 1..5 {
        let error = place.pull_until(part * SIZE as u64 / 5).unwrap_err();
        assert!(matches!(error, Error::Interrupted), "{error}");
        assert_eq!(place.finished(), [] as [String; 0]);
        sent += place.fake.sent();
    }
    let hub = Hub::new(&place.fake.endpoint, None, limits()).unwrap();
    let plan = Plan::new(&hub, &place.cache(), &name(REPO)).unwrap();
    assert!(plan.missing < SIZE as u64 / 3, "{} of {SIZE} are missing", plan.missing);
    assert!(fs::read(place.pull().unwrap()).unwrap() == bytes);
    sent += place.fake.sent();
    // What was on its way when it stopped comes again: at most what each connection's buffers hold.
    assert!(sent < SIZE as u64 * 3 / 2, "{sent} bytes were sent for a file of {SIZE}");
}

#[test]
fn answers_that_end_early_are_asked_for_the_rest() {
    let bytes = noise(SIZE, 7);
    for fault in [Fault::ShortBody(300_001), Fault::NoRanges, Fault::ShortWhole(4 << 20)] {
        let place = Place::new(&[("model.gguf", bytes.clone())]);
        place.fake.with(REPO, |repo| repo.fault = fault);
        match (fault, place.pull()) {
            // What knows no ranges and never sends all can only be given up.
            (Fault::ShortWhole(_), Err(Error::Network(_))) => assert_eq!(place.finished(), [] as [String; 0]),
            (_, Ok(path)) => assert!(fs::read(path).unwrap() == bytes, "{fault:?}"),
            (_, result) => panic!("{fault:?}: {result:?}"),
        }
    }
}

#[test]
fn a_server_without_ranges_sends_the_whole_file_after_a_stop() {
    let bytes = noise(SIZE, 8);
    let place = Place::new(&[("model.gguf", bytes.clone())]);
    place.fake.with(REPO, |repo| repo.speed = 6 << 20);
    place.pull_until(SIZE as u64 / 3).unwrap_err();
    place.fake.with(REPO, |repo| (repo.fault, repo.speed) = (Fault::NoRanges, 0));
    assert!(fs::read(place.pull().unwrap()).unwrap() == bytes);
}

#[test]
fn bytes_that_are_not_those_of_the_repository_are_not_kept() {
    let place = Place::new(&[("model.gguf", noise(1 << 20, 9))]);
    for (fault, wanted) in [
        (Fault::WrongByte, "its bytes have the hash"),
        (Fault::ChangedTag, "it was changed on the Hub"),
        (Fault::WrongRange, "asked for `bytes 0-1048575/1048576`, the server sent `bytes 1-1048575/1048576`"),
        (Fault::Busy, "answered 503"),
        (Fault::Stalls, "org/model-gguf/model.gguf"),
        (Fault::ShortBody(0), "org/model-gguf/model.gguf"),
    ] {
        place.fake.with(REPO, |repo| repo.fault = fault);
        let stall = if fault == Fault::Stalls { Duration::from_millis(200) } else { limits().stall };
        let error = place.pull_within(Limits { stall, ..limits() }, None, REPO).unwrap_err();
        assert!(error.to_string().contains(wanted), "{fault:?}: {error}");
        assert_eq!(place.finished(), [] as [String; 0], "{fault:?}");
    }
    place.fake.release();
    place.fake.with(REPO, |repo| repo.fault = Fault::None);
    place.pull().unwrap();
}

#[test]
fn a_damaged_part_is_downloaded_again() {
    let bytes = noise(SIZE, 10);
    let place = Place::new(&[("model.gguf", bytes.clone())]);
    place.fake.with(REPO, |repo| repo.speed = 6 << 20);
    place.pull_until(SIZE as u64 / 2).unwrap_err();
    place.fake.with(REPO, |repo| repo.speed = 0);
    let blobs = place.home.path().join("models--org--model-gguf/blobs");
    let part = blobs.join(format!("{}.tern-part", sha256(&bytes)));
    let mut damaged = fs::read(&part).unwrap();
    damaged[..1000].fill(0);
    fs::write(&part, damaged).unwrap();
    assert!(fs::read(place.pull().unwrap()).unwrap() == bytes);
}

#[test]
fn who_may_not_read_is_told_what_to_do() {
    let place = Place::new(&[("model.gguf", noise(1000, 11))]);
    let hint = |result: Result<PathBuf, Error>| {
        let error = result.unwrap_err();
        format!("{error} | {}", error.hint().unwrap_or_default())
    };
    assert!(
        hint(place.pull_with(None, "org/nothing"))
            .starts_with("org/nothing: not found on the Hub | check the name")
    );
    place.fake.with(REPO, |repo| repo.access = Access::Gated);
    let gated = hint(place.pull());
    let page = format!("{}/{REPO}", place.fake.endpoint);
    assert_eq!(
        gated,
        format!(
            "{page}: this repository is gated | accept the terms at {page}, then set HF_TOKEN to a token of that account"
        )
    );
    assert_eq!(hint(place.pull_with(Some("other"), REPO)), gated);
    place.fake.with(REPO, |repo| repo.access = Access::Private);
    assert!(hint(place.pull()).contains("set HF_TOKEN"));
    assert!(hint(place.pull_with(Some("other"), REPO)).contains("the token was refused"));
    place.pull_with(Some("secret"), REPO).unwrap();
}

#[test]
fn the_token_stays_with_the_hub() {
    let place = Place::new(&[("model.gguf", noise(1 << 20, 12))]);
    place.pull_with(Some("secret"), REPO).unwrap();
    let log = &place.fake.state.lock().unwrap().log;
    assert!(log.iter().any(|(host, _, _)| host == "storage"));
    for (host, path, token) in log {
        assert_eq!(*token, host == "hub", "{host} {path}");
    }
}

#[test]
fn a_repository_cannot_write_outside_of_the_cache() {
    let hash = "a".repeat(40);
    for path in ["../../evil.gguf", "/tmp/evil.gguf", "a/../../evil.gguf", "a\\\\..\\\\evil.gguf"] {
        let place = Place::new(&[("model.gguf", noise(1000, 13))]);
        let entry = format!("{{\"rfilename\": \"{path}\", \"size\": 4, \"blobId\": \"{hash}\"}}");
        place.fake.with(REPO, |repo| repo.extra = vec![entry]);
        let error = place.pull().unwrap_err().to_string();
        assert!(error.contains("would leave its folder"), "{error}");
    }
    for entry in [
        "{\"rfilename\": \"x.gguf\", \"size\": 4, \"blobId\": \"../../../x\"}",
        "{\"rfilename\": \"x.gguf\", \"size\": 4}",
        "{\"rfilename\": \"x.gguf\", \"blobId\": \"0123456789abcdef0123456789abcdef01234567\"}",
        "7",
    ] {
        let place = Place::new(&[]);
        place.fake.with(REPO, |repo| repo.extra = vec![entry.to_owned()]);
        assert!(matches!(place.pull().unwrap_err(), Error::Protocol(_)), "{entry}");
    }
}

#[test]
fn a_model_that_does_not_fit_on_the_disk_is_refused_before_it_begins() {
    let place = Place::new(&[]);
    let entry = format!(
        "{{\"rfilename\": \"huge.gguf\", \"size\": 1, \"blobId\": \"x\", \"lfs\": {{\"sha256\": \"{}\", \"size\": {}}}}}",
        "a".repeat(64),
        1_u64 << 50
    );
    place.fake.with(REPO, |repo| repo.extra = vec![entry]);
    let error = place.pull().unwrap_err();
    assert!(matches!(error, Error::Space { .. }), "{error}");
    assert!(error.to_string().contains("1125899.91 GB are needed"), "{error}");
    assert_eq!(place.finished(), [] as [String; 0]);
}

#[test]
fn two_processes_download_a_file_once() {
    let bytes = noise(SIZE, 14);
    let place = Place::new(&[("model.gguf", bytes)]);
    place.fake.with(REPO, |repo| repo.speed = 6 << 20);
    std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..3).map(|_| scope.spawn(|| place.pull().unwrap())).collect();
        let paths: Vec<_> = pulls.into_iter().map(|pull| pull.join().unwrap()).collect();
        assert!(paths.iter().all(|path| *path == paths[0]));
    });
    assert_eq!(place.fake.sent(), SIZE as u64);
}
