//! The terminal while `--monitor` has it: a thread draws the [`Board`] on the alternate screen and listens for Ctrl-C. The
//! screen is given back whichever way the run ends: done, stopped, failed or panicked.

use std::io::{self, IsTerminal};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::event::{self, KeyCode, KeyEvent, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use tern_train::run::Event;

use super::board::Board;
use crate::signal;

/// Whether the alternate screen is ours; held while something is drawn.
static OURS: Mutex<bool> = Mutex::new(false);

fn ours() -> MutexGuard<'static, bool> {
    OURS.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn enter() -> io::Result<()> {
    let mut is_ours = ours();
    enable_raw_mode()?;
    *is_ours = true;
    execute!(io::stderr(), EnterAlternateScreen, Hide)
}

/// Gives the terminal back as it was; nothing where it is not ours.
fn leave() {
    let mut is_ours = ours();
    if std::mem::take(&mut *is_ours) {
        let _ = execute!(io::stderr(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

/// The view, as long as it lives.
pub(super) struct Screen {
    events: Option<Sender<Event>>,
    thread: Option<JoinHandle<()>>,
}

impl Screen {
    /// Takes the terminal; `None` where there is none.
    pub(super) fn open(board: Board) -> Option<Self> {
        if !io::stderr().is_terminal() || !io::stdin().is_terminal() {
            return None;
        }
        if enter().is_err() {
            leave();
            return None;
        }
        signal::before_exit(leave);
        // What a panic says must stand on the usual screen.
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |what| {
            leave();
            before(what);
        }));
        let (events, told) = channel();
        let thread = std::thread::spawn(move || show(board, &told));
        Some(Self { events: Some(events), thread: Some(thread) })
    }

    pub(super) fn tell(&self, event: Event) {
        if let Some(events) = &self.events {
            let _ = events.send(event);
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.events = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        leave();
    }
}

/// Draws when something has changed, at most ten times a second, until the run is over.
fn show(mut board: Board, told: &Receiver<Event>) {
    let Ok(mut terminal) = Terminal::new(CrosstermBackend::new(io::stderr())) else { return };
    let mut drawn: Option<Instant> = None;
    let mut changed = true;
    loop {
        match told.recv_timeout(Duration::from_millis(100)) {
            Ok(event) => {
                board.tell(event);
                told.try_iter().for_each(|event| board.tell(event));
                changed = true;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while event::poll(Duration::ZERO).unwrap_or(false) {
            match event::read() {
                Ok(event::Event::Key(key)) if is_ctrl_c(key) => signal::interrupt(),
                Ok(event::Event::Resize(..)) => changed = true,
                _ => {}
            }
        }
        if changed && drawn.is_none_or(|at| at.elapsed() >= Duration::from_millis(100)) {
            let is_ours = ours();
            if !*is_ours || terminal.draw(|frame| board.draw(frame)).is_err() {
                return;
            }
            (drawn, changed) = (Some(Instant::now()), false);
        }
    }
}

/// In raw mode Ctrl-C is a key and no signal.
fn is_ctrl_c(key: KeyEvent) -> bool {
    key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL)
}
