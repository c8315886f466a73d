//! A server inside another program leaves nothing behind when it ends: no thread, no model.
#![cfg(target_os = "linux")]

mod common;

use std::time::{Duration, Instant};

use common::{Server, options, page};

/// Threads of this process that own a model.
fn model_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let name =
        |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    tasks.flatten().map(name).filter(|name| name.trim() == "tern-model").count()
}

fn wait_for_no_model_thread() {
    let start = Instant::now();
    while model_threads() > 0 {
        assert!(start.elapsed() < Duration::from_secs(20), "the model's thread outlives its server");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_model_ends_with_its_server() {
    let server = Server::start(options());
    assert_eq!(model_threads(), 1);
    drop(server);
    wait_for_no_model_thread();

    // Told to end while it loads.
    let (begin, begun) = std::sync::mpsc::channel::<()>();
    let server = Server::loading(options(), move || {
        let _ = begun.recv();
        page()
    });
    drop(server);
    let _ = begin.send(());
    wait_for_no_model_thread();
}
