//! The log: to standard error, to a file of limited size, or to the system log.
//!
//! The loop's lines wait for up to 50 ms and are written together, because a connection has several. Warnings, errors
//! and the lines of other threads are written at once. Lines that cannot be written without blocking are lost, because
//! the daemon must not wait for its log. Each client has a share of the lines ([`line_limiter`]), unless debug messages are
//! logged.

mod line_limiter;

use std::borrow::Cow;
use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use syslog::{Facility, LoggerBackend, Severity};

use crate::client::ClientKey;
use crate::config::{Config, LogTarget};
use crate::protocol::printable::printable;
use crate::thread_pool::lock;
use line_limiter::LineLimiter;

/// The destination of lines.
enum Sink {
    Stderr,
    Syslog(SystemLog),
    File(LogFile),
}

/// A log file. When it has reached half of the limit, it is renamed to `.old`, and a new one begins.
struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    /// Limit on this file and the old one together, in bytes. 0: no limit.
    max_size: u64,
}

struct Logger(Mutex<State>);

/// A line waits no longer than this.
const FLUSH_INTERVAL: Duration = Duration::from_millis(50);

struct State {
    sink: Sink,
    /// When the lines that wait are to be written.
    flush_due: Option<Instant>,
    /// Whole lines that are not written yet: at most PIPE_BUF bytes, which a pipe takes at once.
    pending: String,
    limiter: LineLimiter,
}

thread_local! {
    /// True in the thread that calls [`poll_flush`].
    static DEFERS: Cell<bool> = const { Cell::new(false) };
    /// The client that this thread's lines count for.
    static CLIENT: Cell<Option<ClientKey>> = const { Cell::new(None) };
}

/// While it lives, lines of this thread count for a client. See [`count_for`].
#[derive(Debug)]
pub(crate) struct CountGuard {
    before: Option<ClientKey>,
}

/// Has the lines of this thread count for `client`, but for errors, while the guard lives.
#[must_use = "lines count for the client while the guard lives"]
pub(crate) fn count_for(client: ClientKey) -> CountGuard {
    CountGuard { before: CLIENT.replace(Some(client)) }
}

impl Drop for CountGuard {
    fn drop(&mut self) {
        CLIENT.set(self.before);
    }
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Opens the log that `config` names. If it cannot be opened (a USB stick that is not plugged in), the log goes to standard
/// error and begins with the reason. Returns true if the log does not go to standard error.
pub(crate) fn start(config: &Config) -> bool {
    let (sink, error) = match Sink::open(config) {
        Ok(sink) => (sink, None),
        Err(error) => (Sink::Stderr, Some(error)),
    };
    let is_elsewhere = !matches!(sink, Sink::Stderr);
    install(sink, config);
    if let Some(error) = error {
        log::warn!("{error}; logging to standard error");
    }
    is_elsewhere
}

/// Replaces the open log by the one that `config` names. After an error, which says what cannot be opened, the open log
/// stays.
pub(crate) fn reopen(config: &Config) -> Result<(), String> {
    install(Sink::open(config)?, config);
    Ok(())
}

/// Lets the lines of this thread wait. It must call [`poll_flush`] before it sleeps, and [`flush`] at its end.
pub(crate) fn defer_lines() {
    DEFERS.set(true);
}

/// Writes the lines that wait if they are due. Returns when this is to be called again.
pub(crate) fn poll_flush(now: Instant) -> Option<Instant> {
    let mut state = LOGGER.get()?.state();
    state.poll_limiter(now);
    if state.flush_due.is_some_and(|due| due <= now) {
        state.flush();
    }
    [state.flush_due, state.limiter.deadline()].into_iter().flatten().min()
}

/// Writes the lines that wait.
pub(crate) fn flush() {
    if let Some(logger) = LOGGER.get() {
        logger.state().flush();
    }
}

fn install(sink: Sink, config: &Config) {
    match LOGGER.get() {
        Some(logger) => {
            let mut state = logger.state();
            state.flush();
            state.sink = sink;
        }
        None => {
            let logger = LOGGER.get_or_init(|| Logger(Mutex::new(State::new(sink))));
            // It fails if there is a logger already, and ours is the only one.
            let _ = log::set_logger(logger);
        }
    }
    log::set_max_level(if config.debug { LevelFilter::Debug } else { LevelFilter::Info });
}

/// Opens the log, writes one line and closes the log, for the supervisor, which writes few lines.
pub(crate) fn log_once(config: &Config, level: Level, text: &str) {
    let sink = Sink::open(config).unwrap_or(Sink::Stderr);
    State::new(sink).write(level, text, false);
}

impl Logger {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        lock(&self.0)
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        // Messages of libraries are not logged.
        if self.enabled(record.metadata()) && record.target().starts_with(env!("CARGO_PKG_NAME")) {
            let deferred = DEFERS.get() && record.level() >= Level::Info;
            let mut state = self.state();
            // Debug messages are switched on to find a fault: no line may be missing then. Errors are few.
            let counted = log::max_level() < LevelFilter::Debug && record.level() > Level::Error;
            if let Some(client) = CLIENT.get().filter(|_| counted) {
                let now = Instant::now();
                state.poll_limiter(now);
                if !state.limiter.allow(client, now) {
                    return;
                }
            }
            state.write(record.level(), &record.args().to_string(), deferred);
        }
    }

    fn flush(&self) {}
}

impl Sink {
    fn open(config: &Config) -> Result<Self, String> {
        Ok(match &config.log {
            LogTarget::Stderr => Self::Stderr,
            LogTarget::Syslog => Self::Syslog(SystemLog::default()),
            LogTarget::File(path) => {
                let file = LogFile::open(path.clone(), config.log_max);
                Self::File(file.map_err(|error| format!("cannot write the log {}: {error}", path.display()))?)
            }
        })
    }
}

impl State {
    fn new(sink: Sink) -> Self {
        Self { sink, flush_due: None, pending: String::new(), limiter: LineLimiter::default() }
    }

    /// Logs how many lines of clients were left out, once in each period.
    fn poll_limiter(&mut self, now: Instant) {
        for left_out in self.limiter.poll(now) {
            let client = left_out.client.map_or_else(|| "other addresses".to_owned(), |client| client.to_string());
            self.write(Level::Info, &format!("{} more lines of {client}", left_out.lines), false);
        }
    }

    /// Writes a line, after those that wait; `deferred`: lets it wait, too.
    fn write(&mut self, level: Level, text: &str, deferred: bool) {
        // The text may quote a plugin: nothing in it begins a new line or controls a terminal.
        let text = printable(text);
        let line = || format!("{} {level:<5} {text}\n", timestamp(SystemTime::now()));
        if let Sink::Syslog(log) = &mut self.sink {
            // Early at boot and in containers there may be no system log; standard error may still be read.
            let _ = log.write(level, &text).or_else(|_| write_stderr(&line()));
            return;
        }
        let line = line();
        if self.pending.len() + line.len() > libc::PIPE_BUF {
            self.flush();
        }
        self.pending.push_str(&line);
        if deferred {
            self.flush_due.get_or_insert_with(|| Instant::now() + FLUSH_INTERVAL);
        } else {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        // There is no place to report an error to.
        let _ = match &mut self.sink {
            Sink::File(file) => file.write(&self.pending),
            Sink::Stderr | Sink::Syslog(_) => write_stderr(&self.pending),
        };
        self.pending.clear();
        self.flush_due = None;
    }
}

impl LogFile {
    fn open(path: PathBuf, max_size: u64) -> io::Result<Self> {
        // Opening or writing a FIFO without a reader must not block.
        let file = OpenOptions::new().append(true).create(true).custom_flags(libc::O_NONBLOCK).open(&path)?;
        let metadata = file.metadata()?;
        // Only regular files grow, and a device such as /dev/null must not be renamed.
        let max_size = if metadata.is_file() { max_size } else { 0 };
        Ok(Self { path, file, size: metadata.len(), max_size })
    }

    /// Writes whole lines. A new file begins between two of them.
    fn write(&mut self, lines: &str) -> io::Result<()> {
        let mut fitting = 0;
        for line in lines.split_inclusive('\n') {
            let size = self.size + (fitting + line.len()) as u64;
            if self.max_size > 0 && self.size + fitting as u64 > 0 && size > self.max_size / 2 {
                let (now, later) = lines.split_at(fitting);
                self.file.write_all(now.as_bytes())?;
                self.rotate();
                return self.write(later);
            }
            fitting += line.len();
        }
        self.size += lines.len() as u64;
        self.file.write_all(lines.as_bytes())
    }

    /// Renames the file to `.old` and begins a new one. If that fails (the file was removed, or descriptors are scarce), the
    /// line goes to the old file, which may grow by another half of the limit.
    fn rotate(&mut self) {
        let mut old = self.path.clone().into_os_string();
        old.push(".old");
        if let Err(error) = std::fs::rename(&self.path, old)
            && error.kind() != io::ErrorKind::NotFound
        {
            // The directory is not writable. The limit still holds.
            let _ = self.file.set_len(0);
            self.size = 0;
            return;
        }
        match Self::open(self.path.clone(), self.max_size) {
            Ok(new) => *self = new,
            Err(_) => self.size = 0,
        }
    }
}

/// Writes lines to standard error, unless that would block: standard error may be a pipe that its reader does not read. A
/// pipe that is writable accepts PIPE_BUF bytes at once (pipe(7)).
fn write_stderr(line: &str) -> io::Result<()> {
    let stderr = io::stderr();
    let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut fds, PollTimeout::ZERO)? == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    stderr.lock().write_all(truncate(line).as_bytes())
}

/// Truncates a line to PIPE_BUF bytes, its newline included.
fn truncate(line: &str) -> Cow<'_, str> {
    if line.len() <= libc::PIPE_BUF {
        return line.into();
    }
    let end = (0..libc::PIPE_BUF).rev().find(|&at| line.is_char_boundary(at)).unwrap_or(0);
    format!("{}\n", &line[..end]).into()
}

/// The local system log. The log daemon may restart: without a connection, each line connects.
#[derive(Default)]
struct SystemLog(Option<LoggerBackend>);

impl SystemLog {
    /// Writes `<priority>name[pid]: text` (RFC 3164 without the timestamp, which the receiver adds).
    fn write(&mut self, level: Level, text: &str) -> io::Result<()> {
        let severity = match level {
            Level::Error => Severity::LOG_ERR,
            Level::Warn => Severity::LOG_WARNING,
            Level::Info => Severity::LOG_INFO,
            Level::Debug | Level::Trace => Severity::LOG_DEBUG,
        };
        let priority = Facility::LOG_DAEMON as u8 | severity as u8;
        let line = format!("<{priority}>{}[{}]: {text}", env!("CARGO_PKG_NAME"), std::process::id());
        if let Some(backend) = &mut self.0 {
            match backend.write(line.as_bytes()) {
                // The log daemon hangs. The line is lost.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Ok(_) => return Ok(()),
                // The log daemon has ended, or was restarted.
                Err(_) => self.0 = None,
            }
        }
        let mut backend = Self::connect().map_err(io::Error::other)?;
        backend.write(line.as_bytes()).map(drop)?;
        self.0 = Some(backend);
        Ok(())
    }

    fn connect() -> Result<LoggerBackend, syslog::Error> {
        let logger = syslog::unix(())?;
        if let LoggerBackend::Unix(socket) = &logger.backend {
            UnixDatagram::set_nonblocking(socket, true)?;
        }
        Ok(logger.backend)
    }
}

/// `2026-11-21 09:15:02.123`, in local time, as in Luup's log.
fn timestamp(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let parts = local_time(since.as_secs());
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:03}",
        parts.tm_year + 1900,
        parts.tm_mon + 1,
        parts.tm_mday,
        parts.tm_hour,
        parts.tm_min,
        parts.tm_sec,
        since.subsec_millis()
    )
}

/// Calls localtime_r(3), for which std and nix have no function.
fn local_time(seconds: u64) -> libc::tm {
    let seconds = seconds.try_into().unwrap_or_default();
    // SAFETY: `tm` is plain data, for which zeros are valid, and both pointers are valid during the call.
    unsafe {
        let mut parts = std::mem::zeroed();
        libc::localtime_r(&seconds, &mut parts);
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_stays_within_its_limit() {
        let directory = std::env::temp_dir().join(format!("sockproxyd-log-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("log");
        let mut log = LogFile::open(path.clone(), 1000).unwrap();
        let line = |number: u32| format!("line {number:04}\n");
        for number in 0..100 {
            log.write(&line(number)).unwrap();
        }
        // Together they are longer than the limit.
        log.write(&(100..200).map(line).collect::<String>()).unwrap();
        let (new, old) =
            (std::fs::read_to_string(&path).unwrap(), std::fs::read_to_string(directory.join("log.old")).unwrap());
        assert!(new.len() <= 500 && old.len() <= 500, "{} {}", new.len(), old.len());
        let both = old + &new;
        assert!(both.ends_with("line 0199\n"));
        let lines: Vec<u32> = both.lines().map(|line| line[5..].parse().unwrap()).collect();
        assert!(lines.windows(2).all(|pair| pair[1] == pair[0] + 1), "a line is lost");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn what_is_left_out_is_counted_in_a_line() {
        let directory = std::env::temp_dir().join(format!("sockproxyd-log-limiter-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("log");
        let mut state = State::new(Sink::File(LogFile::open(path.clone(), 0).unwrap()));
        let start = Instant::now();
        while state.limiter.deadline().is_none() {
            state.limiter.allow(ClientKey::of([10, 0, 0, 1].into()), start);
        }
        state.poll_limiter(start + Duration::from_secs(59));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "");
        state.poll_limiter(start + Duration::from_secs(60));
        assert!(std::fs::read_to_string(&path).unwrap().ends_with(" INFO  1 more lines of 10.0.0.1\n"));
        std::fs::remove_dir_all(&directory).unwrap();
    }

    /// Regression: after a log file was removed, no line was written to a file again.
    #[test]
    fn a_removed_file_is_created_again() {
        let directory = std::env::temp_dir().join(format!("sockproxyd-log-gone-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("log");
        let mut log = LogFile::open(path.clone(), 100).unwrap();
        log.write("one\n").unwrap();
        std::fs::remove_file(&path).unwrap();
        for _ in 0..100 {
            log.write("more\n").unwrap();
        }
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("more\n"));
        std::fs::remove_dir_all(&directory).unwrap();
    }

    /// Regression: when the limit was reached, /dev/null was renamed, and a regular file took its place.
    #[test]
    fn only_regular_files_are_renamed() {
        let directory = std::env::temp_dir().join(format!("sockproxyd-log-device-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("log");
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        let mut log = LogFile::open(path.clone(), 100).unwrap();
        for _ in 0..100 {
            log.write("more\n").unwrap();
        }
        assert!(path.is_symlink() && !directory.join("log.old").exists());
        let pipe = directory.join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(LogFile::open(pipe, 100).is_err(), "opening a FIFO without a reader must fail at once");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    /// Regression: a truncated line had no newline, so that the next line continued it.
    #[test]
    fn a_long_line_is_truncated_before_its_newline() {
        assert_eq!(truncate("short\n"), "short\n");
        let longest = "x".repeat(libc::PIPE_BUF - 1) + "\n";
        assert_eq!(truncate(&longest), longest);
        for long in ["x".repeat(libc::PIPE_BUF) + "\n", "ä".repeat(libc::PIPE_BUF) + "\n"] {
            let short = truncate(&long);
            assert!(
                short.ends_with('\n') && short.len() > libc::PIPE_BUF - 2 && short.len() <= libc::PIPE_BUF,
                "{}",
                short.len()
            );
        }
    }

    #[test]
    fn timestamps() {
        let stamp = timestamp(UNIX_EPOCH + std::time::Duration::from_millis(86_400_123 * 400));
        assert!(stamp.starts_with("1971-02-0") && stamp.len() == 23, "{stamp}");
    }
}
