//! The log: to standard error, a file of bounded size, or the system's log.
//!
//! A line is written at once; nothing is held. What cannot be written is lost: a daemon does not stop for its log.

use std::borrow::Cow;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use log::{Level, LevelFilter, Log, Metadata, Record};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use syslog::{Facility, LoggerBackend, Severity};

use crate::config::{Config, LogTarget};
use crate::workers::lock;

/// Where lines go.
enum Sink {
    Stderr,
    Syslog(SystemLog),
    File(LogFile),
}

/// A log file. When it has grown to half of its bound, it becomes the old one, and a new one begins.
struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
    /// Of this file and the old one together, in bytes; 0 is none.
    bound: u64,
}

struct Logger(Mutex<Sink>);

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Opens the log that `config` names. Where it cannot be opened (a stick that is not plugged in), standard error gets
/// the lines, and this one first: a box works without its log. True where lines go elsewhere than to standard error.
pub fn start(config: &Config) -> bool {
    let (sink, trouble) = match Sink::open(config) {
        Ok(sink) => (sink, None),
        Err(error) => (Sink::Stderr, Some(error)),
    };
    let elsewhere = !matches!(sink, Sink::Stderr);
    install(sink, config);
    if let Some(trouble) = trouble {
        log::warn!("{trouble}; logging to standard error");
    }
    elsewhere
}

/// Opens the log that `config` names, in place of the one that is open. An error tells what could not be opened, and
/// then nothing changes.
pub fn reopen(config: &Config) -> Result<(), String> {
    install(Sink::open(config)?, config);
    Ok(())
}

fn install(sink: Sink, config: &Config) {
    match LOGGER.get() {
        Some(logger) => *logger.sink() = sink,
        None => {
            let logger = LOGGER.get_or_init(|| Logger(Mutex::new(sink)));
            // It fails where there is a logger, and there is none but ours.
            let _ = log::set_logger(logger);
        }
    }
    log::set_max_level(if config.debug { LevelFilter::Debug } else { LevelFilter::Info });
}

/// Writes one line without keeping anything open: for the supervisor, which has little to say.
pub fn say_once(config: &Config, level: Level, text: &str) {
    Sink::open(config).unwrap_or(Sink::Stderr).write(level, text);
}

impl Logger {
    fn sink(&self) -> std::sync::MutexGuard<'_, Sink> {
        lock(&self.0)
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        // What the libraries have to say is of use only to who debugs them.
        if self.enabled(record.metadata()) && record.target().starts_with(env!("CARGO_PKG_NAME")) {
            self.sink().write(record.level(), &record.args().to_string());
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

    fn write(&mut self, level: Level, text: &str) {
        // What a plugin wrote may be quoted; it makes no lines of its own, and plays no tricks on terminals.
        let text = text.replace(char::is_control, "?");
        let line = || format!("{} {level:<5} {text}\n", timestamp(SystemTime::now()));
        // An error is nowhere to be told.
        let _ = match self {
            Self::Stderr => write_stderr(&line()),
            Self::File(file) => file.write(line().as_bytes()),
            // Early at boot, or in a container, there may be none: somebody may still read standard error.
            Self::Syslog(log) => log.write(level, &text).or_else(|_| write_stderr(&line())),
        };
    }
}

impl LogFile {
    fn open(path: PathBuf, bound: u64) -> io::Result<Self> {
        // Neither does a pipe that nobody reads hold us up.
        let file = OpenOptions::new().append(true).create(true).custom_flags(libc::O_NONBLOCK).open(&path)?;
        let metadata = file.metadata()?;
        // What is no file does not grow, and /dev/null is not ours to rename.
        let bound = if metadata.is_file() { bound } else { 0 };
        Ok(Self { path, file, size: metadata.len(), bound })
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.bound > 0 && self.size > 0 && self.size + line.len() as u64 > self.bound / 2 {
            self.rotate();
        }
        self.size += line.len() as u64;
        self.file.write_all(line)
    }

    /// Begins a new file. Where that fails, the line goes to the old one, and the next rotation is tried later:
    /// somebody may have removed the file, or descriptors are scarce.
    fn rotate(&mut self) {
        let mut old = self.path.clone().into_os_string();
        old.push(".old");
        if let Err(error) = std::fs::rename(&self.path, old)
            && error.kind() != io::ErrorKind::NotFound
        {
            // The folder is not ours to write; the bound holds all the same.
            let _ = self.file.set_len(0);
            self.size = 0;
            return;
        }
        match Self::open(self.path.clone(), self.bound) {
            Ok(new) => *self = new,
            Err(_) => self.size = 0,
        }
    }
}

/// Writes a line to standard error, unless that would block: whoever started us with a pipe may not read it, and the
/// house does not stand still for that. A pipe that is writable takes PIPE_BUF bytes at once (pipe(7)).
fn write_stderr(line: &str) -> io::Result<()> {
    let stderr = io::stderr();
    let mut fds = [PollFd::new(stderr.as_fd(), PollFlags::POLLOUT)];
    if poll(&mut fds, PollTimeout::ZERO)? == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    stderr.lock().write_all(fitted(line).as_bytes())
}

/// The line itself, or as much of its beginning as one write takes.
fn fitted(line: &str) -> Cow<'_, str> {
    if line.len() <= libc::PIPE_BUF {
        return line.into();
    }
    let end = (0..libc::PIPE_BUF).rev().find(|&at| line.is_char_boundary(at)).unwrap_or_default();
    format!("{}\n", &line[..end]).into()
}

/// The local system log. It may come and go: each line looks for it where it is not connected.
#[derive(Default)]
struct SystemLog(Option<LoggerBackend>);

impl SystemLog {
    /// Writes `<priority>name[pid]: text` (RFC 3164 without the stamp, which the receiver adds).
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
                // A log daemon that is stuck loses lines; we do not wait for it.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Ok(_) => return Ok(()),
                // It has gone, or was restarted.
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

/// `2026-11-21 09:15:02.123`, in local time, as Luup's own log has it.
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

/// localtime_r(3), which neither std nor nix has.
fn local_time(seconds: u64) -> libc::tm {
    let seconds = seconds.try_into().unwrap_or_default();
    // SAFETY: `tm` is plain data, for which zeros are valid, and both pointers are good for the call.
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
    fn a_file_keeps_to_its_bound() {
        let directory = std::env::temp_dir().join(format!("sockproxyd-log-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("log");
        let mut log = LogFile::open(path.clone(), 1000).unwrap();
        for number in 0..200 {
            log.write(format!("line {number:04}\n").as_bytes()).unwrap();
        }
        let (new, old) =
            (std::fs::read_to_string(&path).unwrap(), std::fs::read_to_string(directory.join("log.old")).unwrap());
        assert!(new.len() <= 500 && old.len() <= 500, "{} {}", new.len(), old.len());
        let both = old + &new;
        assert!(both.ends_with("line 0199\n"));
        let lines: Vec<u32> = both.lines().map(|line| line[5..].parse().unwrap()).collect();
        assert!(lines.windows(2).all(|pair| pair[1] == pair[0] + 1), "nothing is lost in between");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    /// Regression: a log file that somebody removed was never written to again.
    #[test]
    fn a_file_that_is_removed_comes_back() {
        let directory = std::env::temp_dir().join(format!("sockproxyd-log-gone-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("log");
        let mut log = LogFile::open(path.clone(), 100).unwrap();
        log.write(b"one\n").unwrap();
        std::fs::remove_file(&path).unwrap();
        for _ in 0..100 {
            log.write(b"more\n").unwrap();
        }
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("more\n"));
        std::fs::remove_dir_all(&directory).unwrap();
    }

    /// Regression: /dev/null became a file when its bound was reached, and /dev/null.old the device.
    #[test]
    fn what_is_no_file_is_left_where_it_is() {
        let directory = std::env::temp_dir().join(format!("sockproxyd-log-device-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("log");
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        let mut log = LogFile::open(path.clone(), 100).unwrap();
        for _ in 0..100 {
            log.write(b"more\n").unwrap();
        }
        assert!(path.is_symlink() && !directory.join("log.old").exists());
        let pipe = directory.join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(LogFile::open(pipe, 100).is_err(), "nobody reads, and nobody is waited for");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    /// Regression: a line that was cut had lost its newline, and the next one was glued to it.
    #[test]
    fn a_long_line_is_cut_and_stays_a_line() {
        assert_eq!(fitted("short\n"), "short\n");
        let longest = "x".repeat(libc::PIPE_BUF - 1) + "\n";
        assert_eq!(fitted(&longest), longest);
        for long in ["x".repeat(libc::PIPE_BUF) + "\n", "ä".repeat(libc::PIPE_BUF) + "\n"] {
            let cut = fitted(&long);
            assert!(
                cut.ends_with('\n') && cut.len() > libc::PIPE_BUF - 2 && cut.len() <= libc::PIPE_BUF,
                "{}",
                cut.len()
            );
        }
    }

    #[test]
    fn stamps() {
        let stamp = timestamp(UNIX_EPOCH + std::time::Duration::from_millis(86_400_123 * 400));
        assert!(stamp.starts_with("1971-02-0") && stamp.len() == 23, "{stamp}");
    }
}
