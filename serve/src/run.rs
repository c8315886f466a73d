//! A whole process that serves: its threads, its signals.

use std::net::SocketAddr;

use tokio::net::TcpListener;

use crate::options::Options;
use crate::served::Serving;
use crate::server::{Error, run};

/// Threads that read requests and write answers; the model's own do the work.
const THREADS: usize = 2;

/// Serves on this address until the process is told to end (SIGTERM, SIGINT, Ctrl-C); told again, it ends at once.
pub fn serve_until_told(address: SocketAddr, models: Serving, options: Options) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_name("tern-serve")
        .enable_all()
        .build()
        .map_err(Error::Listener)?;
    let served = runtime.block_on(async {
        let bound = TcpListener::bind(address).await;
        let listener = bound.map_err(|error| Error::Address(address, error))?;
        let told = signals().map_err(Error::Listener)?;
        run(listener, models, options, told).await
    });
    // A prompt that is just being prepared is not worth waiting for.
    runtime.shutdown_background();
    served
}

/// Ready at the first signal; the second one ends the process.
#[cfg(unix)]
fn signals() -> std::io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tokio::spawn(async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            std::process::exit(130);
        });
    })
}

#[cfg(not(unix))]
fn signals() -> std::io::Result<impl Future<Output = ()>> {
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
        tokio::spawn(async {
            let _ = tokio::signal::ctrl_c().await;
            std::process::exit(130);
        });
    })
}
