//! A small parent process for boxes without procd or systemd: it restarts the daemon when that ends, and does nothing else.
//!
//! It forks before there is any thread, passes signals on, and ends when it is told to by a signal. STOP is for the daemon
//! alone: procd and systemd start it again, too.

use std::os::fd::{AsFd, RawFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getppid};

/// Pause before the first restart, doubled for each daemon that did not last.
const MIN_RESTART_DELAY: Duration = Duration::from_millis(200);
/// The longest pause. There is no last attempt: no person may be near the box to start the daemon by hand.
const MAX_RESTART_DELAY: Duration = Duration::from_secs(10);
/// A daemon that has run for this long resets the pause.
const STABLE_AFTER: Duration = Duration::from_secs(60);
/// The exit status of a daemon that cannot start. Waiting does not correct a configuration.
const EXIT_UNUSABLE: i32 = 2;

/// Signals that are passed on to the daemon.
const FORWARDED: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1];

/// How a child ended.
enum ChildEnd {
    /// With this exit status: 0, because the supervisor was told to end, or [`EXIT_UNUSABLE`], because it could not start.
    Exited(i32),
    /// It died, or was told to end by STOP. The text says which.
    Died(String),
}

/// Runs `daemon` in a child, and again when it dies. `report` logs its deaths. Returns the exit status.
///
/// Must be called before any thread is started.
pub(crate) fn run(daemon: impl Fn() -> i32, report: impl Fn(&str)) -> nix::Result<i32> {
    let mut signals = SigSet::empty();
    FORWARDED.iter().chain([&Signal::SIGCHLD]).for_each(|&signal| signals.add(signal));
    signals.thread_block()?;
    let inbox = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let parent = nix::unistd::getpid();
    let mut pause = MIN_RESTART_DELAY;
    let mut restarted = false;
    loop {
        let started = Instant::now();
        // SAFETY: there is one thread, so the child may do whatever the parent might.
        let child = match unsafe { fork() }? {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                drop(inbox);
                // The daemon receives its signals as events, so they stay blocked.
                let mut own = SigSet::empty();
                own.add(Signal::SIGCHLD);
                own.thread_unblock()?;
                // A supervisor that is killed ends its daemon, too: an orphan would hold the port for ever.
                let _ = prctl::set_pdeathsig(Signal::SIGTERM);
                if getppid() != parent {
                    return Ok(0);
                }
                return Ok(daemon());
            }
        };
        match watch(child, &inbox)? {
            ChildEnd::Exited(EXIT_UNUSABLE) if restarted => report("the daemon cannot start; trying again"),
            ChildEnd::Exited(status) => return Ok(status),
            ChildEnd::Died(why) => {
                let (seconds, tenths) = (pause.as_secs(), pause.subsec_millis() / 100);
                report(&format!("the daemon {why}; restarting it in {seconds}.{tenths} s"));
            }
        }
        if started.elapsed() >= STABLE_AFTER {
            pause = MIN_RESTART_DELAY;
        }
        restarted = true;
        if wait(&inbox, pause)? {
            return Ok(0);
        }
        pause = (pause * 2).min(MAX_RESTART_DELAY);
    }
}

/// Closes all descriptors above the three standard ones. Those that the parent process left open would stay open for
/// years, the lock of a package manager among them. Best effort; errors are ignored.
///
/// Must be called before anything opens a descriptor to keep: its number would later stand for another file or none.
pub(crate) fn close_inherited() {
    // Reading the directory takes a descriptor of its own, which is gone before the first is closed.
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok());
    let numbers: Vec<RawFd> = numbers.filter(|&number| number > 2).collect();
    for number in numbers {
        let _ = nix::unistd::close(number);
    }
}

/// Passes signals on until the child ends. Once the supervisor was told to end, the child's death counts as an end on purpose.
fn watch(child: Pid, inbox: &SignalFd) -> nix::Result<ChildEnd> {
    let mut told_to_end = false;
    loop {
        let end = match waitpid(child, Some(WaitPidFlag::WNOHANG))? {
            WaitStatus::Exited(_, status @ (0 | EXIT_UNUSABLE)) => Some(ChildEnd::Exited(status)),
            WaitStatus::Exited(_, status) => Some(ChildEnd::Died(format!("ended with status {status}"))),
            WaitStatus::Signaled(_, signal, _) => Some(ChildEnd::Died(format!("was killed by {signal}"))),
            _ => None,
        };
        if let Some(end) = end {
            // Ctrl-C tells both processes, and the child may be the first to end.
            while let Some(signal) = next_signal(inbox, PollTimeout::ZERO)? {
                told_to_end |= is_end(signal);
            }
            return Ok(match end {
                ChildEnd::Died(_) if told_to_end => ChildEnd::Exited(0),
                ChildEnd::Exited(0) if !told_to_end => ChildEnd::Died("was told to end".into()),
                end => end,
            });
        }
        while let Some(signal) = next_signal(inbox, PollTimeout::NONE)? {
            if signal == Signal::SIGCHLD {
                break;
            }
            told_to_end |= is_end(signal);
            // Fails if the child has just ended; then SIGCHLD follows.
            let _ = kill(child, signal);
        }
    }
}

/// Waits for `pause`. True if a signal ends the supervisor meanwhile.
fn wait(inbox: &SignalFd, pause: Duration) -> nix::Result<bool> {
    let until = Instant::now() + pause;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        if next_signal(inbox, timeout)?.is_some_and(is_end) {
            return Ok(true);
        }
    }
}

/// True if the signal tells the supervisor to end.
fn is_end(signal: Signal) -> bool {
    matches!(signal, Signal::SIGTERM | Signal::SIGINT)
}

/// The next signal. `None` after `timeout`.
fn next_signal(inbox: &SignalFd, timeout: PollTimeout) -> nix::Result<Option<Signal>> {
    let mut fds = [PollFd::new(inbox.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(error) => return Err(error),
    }
    let signal = inbox.read_signal()?;
    Ok(signal.and_then(|info| Signal::try_from(info.ssi_signo as i32).ok()))
}
