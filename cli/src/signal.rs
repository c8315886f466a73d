//! Ctrl-C: while a model writes, the first one stops the text and the second one ends the process;
//! at any other time the first one ends it.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::failure::{Failure, Outcome};
use crate::terminal;

const IDLE: u8 = 0;
const WRITING: u8 = 1;
const STOPPED: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(IDLE);

/// What is called before the process ends here.
static HOOKS: Mutex<Vec<fn()>> = Mutex::new(Vec::new());

/// Has `hook` called before Ctrl-C ends the process: by a screen that has to give the terminal back.
pub(crate) fn before_exit(hook: fn()) {
    HOOKS.lock().unwrap_or_else(PoisonError::into_inner).push(hook);
}

/// Starts listening for Ctrl-C; called once, before the first [`Writing`].
pub(crate) fn listen() -> Outcome {
    ctrlc::set_handler(interrupt).map_err(|error| Failure::failed(format!("Ctrl-C: {error}")))
}

/// What Ctrl-C does.
pub(crate) fn interrupt() {
    if STATE.compare_exchange(WRITING, STOPPED, Ordering::SeqCst, Ordering::SeqCst).is_err() {
        tern::file::write::discard_drafts();
        let hooks = HOOKS.lock().unwrap_or_else(PoisonError::into_inner).clone();
        hooks.iter().for_each(|hook| hook());
        if terminal::talk_is_terminal() {
            terminal::leave(); // the shell's prompt goes on a line of its own
        }
        std::process::exit(130);
    }
}

/// Notices that the system asks the process to end (SIGTERM), for work that is saved first. From then on the signal does
/// nothing else.
pub(crate) fn termination() -> Outcome<Arc<AtomicBool>> {
    let asked = Arc::new(AtomicBool::new(false));
    #[cfg(unix)]
    signal_hook::flag::register(signal_hook::consts::SIGTERM, asked.clone())
        .map_err(|error| Failure::failed(format!("SIGTERM: {error}")))?;
    Ok(asked)
}

/// While this lives, the first Ctrl-C only asks the text to stop.
pub(crate) struct Writing(());

impl Writing {
    pub(crate) fn begin() -> Self {
        STATE.store(WRITING, Ordering::SeqCst);
        Self(())
    }

    /// Whether Ctrl-C was pressed since the beginning.
    pub(crate) fn stopped(&self) -> bool {
        STATE.load(Ordering::SeqCst) == STOPPED
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        STATE.store(IDLE, Ordering::SeqCst);
    }
}
