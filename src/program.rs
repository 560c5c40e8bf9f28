//! The program: arguments, configuration, log, daemon.

use std::cell::RefCell;
use std::ffi::OsString;
use std::fs::File;
use std::hash::RandomState;
use std::process::ExitCode;

use nix::libc;

use crate::cli::{self, CommandLine, Mode};
use crate::config::Config;
use crate::config::sample::sample;
use crate::daemon::{Daemon, file_problems};
use crate::make_cert::make_cert;
use crate::probe::probe;
use crate::service_manager::ServiceManager;
use crate::show_status::show_status;
use crate::{logging, supervise};

/// The exit status.
#[derive(Clone, Copy)]
enum Exit {
    /// Ended on purpose.
    Done = 0,
    /// Something went wrong while it ran.
    Failed = 1,
    /// It cannot start: invalid options or configuration, or an address that is taken.
    Unusable = 2,
}

/// Runs the program with these arguments, without its own name. The exit status is 0 if it ended on purpose, 1 if something
/// went wrong while it ran, 2 if it cannot start.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    ExitCode::from(match cli::parse(arguments) {
        Ok(command_line) => perform(command_line),
        Err(error) => fail(Exit::Unusable, &format!("{error} (-h for help)")),
    } as u8)
}

fn perform(CommandLine { sources, mode }: CommandLine) -> Exit {
    match mode {
        Mode::Help => return print(cli::HELP),
        Mode::Version => return print(concat!("sockproxyd ", env!("CARGO_PKG_VERSION"), "\n")),
        Mode::Sample => return print(&sample()),
        // Before anything can open a descriptor: libraries keep some, such as /dev/urandom's, and know only their numbers.
        Mode::Supervise => supervise::close_inherited(),
        Mode::Run | Mode::Check | Mode::Probe(_) | Mode::Status { .. } | Mode::MakeCert(_) => {}
    }
    if let Err(error) = open_random_source() {
        return fail(
            Exit::Unusable,
            &format!("no random numbers: the kernel has no getrandom(2), and /dev/urandom: {error}"),
        );
    }
    let config = match Config::load(&sources) {
        Ok(config) => config,
        Err(error) => return fail(Exit::Unusable, &error.to_string()),
    };
    if mode == Mode::Check {
        let problems = file_problems(&config);
        for problem in &problems {
            eprintln!("sockproxyd: warning: {problem}");
        }
        // A proxy without one certificate still serves all other connections.
        return print(if problems.is_empty() { "configuration is fine\n" } else { "configuration is valid\n" });
    }
    if let Mode::Probe(seconds) = mode {
        return match probe(&config.address, config.port, seconds) {
            Ok(()) => Exit::Done,
            Err(error) => fail(Exit::Failed, &error),
        };
    }
    if let Mode::Status { format, watch } = mode {
        return match show_status(&config.address, config.port, format, watch) {
            Ok(()) => Exit::Done,
            Err(error) => fail(Exit::Failed, &error),
        };
    }
    if let Mode::MakeCert(names) = &mode {
        return match make_cert(config.tls.directory.as_deref(), names) {
            Ok(made) => print(&made),
            Err(error) => fail(Exit::Failed, &error),
        };
    }
    // A supervised daemon takes the copy of its own process.
    let manager = RefCell::new(ServiceManager::from_environment());
    let serve = |config: Config| {
        let elsewhere = logging::start(&config);
        let outcome = Daemon::new(config, sources.clone(), manager.take()).map_err(|error| (Exit::Unusable, error));
        match outcome.and_then(|daemon| daemon.run().map_err(|error| (Exit::Failed, error))) {
            Ok(()) => Exit::Done,
            Err((exit, error)) => {
                if elsewhere {
                    log::error!("{error}");
                }
                fail(exit, &error)
            }
        }
    };
    if mode == Mode::Run {
        return serve(config);
    }
    let say = |text: &str| logging::log_once(&config, log::Level::Warn, text);
    // A daemon that is restarted reads the configuration again. If that is invalid now, the first one holds.
    let latest = || Config::reload(&sources).unwrap_or_else(|_| config.clone());
    match supervise::run(|| serve(latest()) as i32, say) {
        Ok(0) => Exit::Done,
        Ok(2) => Exit::Unusable,
        Ok(_) => Exit::Failed,
        Err(error) => fail(Exit::Failed, &format!("cannot supervise: {}", error.desc())),
    }
}

/// Has the standard library open /dev/urandom if the kernel has no getrandom(2), as before Linux 3.17.
///
/// The library opens it for its first hash table, keeps the descriptor, and panics if it cannot. Here that is reported as an
/// error, before descriptors have run out.
fn open_random_source() -> std::io::Result<()> {
    let mut byte = 0u8;
    let answers = |flags| {
        // SAFETY: the buffer has room for the one byte that the call may write.
        unsafe { libc::getrandom((&raw mut byte).cast(), 1, flags) == 1 }
    };
    // As the standard library asks. Neither flag waits for the kernel to have gathered entropy.
    if ![libc::GRND_INSECURE, libc::GRND_NONBLOCK].into_iter().any(answers) {
        File::open("/dev/urandom")?;
    }
    let _ = RandomState::new();
    Ok(())
}

/// Prints an error to standard error, in one line.
fn fail(exit: Exit, what: &str) -> Exit {
    eprintln!("sockproxyd: {what}");
    exit
}

/// Prints to standard output. A reader that has gone is no error.
fn print(text: &str) -> Exit {
    use std::io::Write;
    let _ = std::io::stdout().write_all(text.as_bytes());
    Exit::Done
}
