//! Records the log lines of a thread, for simulations that insist that each kind of outcome occurs.

use std::cell::RefCell;

use log::{LevelFilter, Log, Metadata, Record};

thread_local! {
    static LINES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

struct Recorder;

impl Log for Recorder {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        LINES.with_borrow_mut(|lines| lines.iter_mut().for_each(|lines| lines.push(record.args().to_string())));
    }

    fn flush(&self) {}
}

/// Begins to record what this thread logs.
pub(crate) fn start() {
    // A logger that another test has set stays: then nothing is recorded.
    if log::set_logger(&Recorder).is_ok() {
        log::set_max_level(LevelFilter::Debug);
    }
    LINES.set(Some(Vec::new()));
}

/// What this thread has logged since [`start`]. Recording ends.
pub(crate) fn take() -> Vec<String> {
    LINES.take().unwrap_or_default()
}
