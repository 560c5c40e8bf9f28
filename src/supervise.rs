//! A tiny parent for boxes without procd or systemd: it starts the daemon anew when it dies, and does nothing else.
//!
//! It forks before there is any thread, passes signals on, and ends when the daemon ends on purpose.

use std::os::fd::{AsFd, RawFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getppid};

/// Pause before the first new start, doubled for each daemon that did not last.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause. There is no last attempt: a box in a cellar has nobody to start it by hand.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A daemon that has run for this long has proven itself.
const PROVEN: Duration = Duration::from_secs(60);
/// A daemon that says so could not start; waiting does not mend a configuration.
const CANNOT_START: i32 = 2;

/// Signals that mean something to the daemon and are passed on.
const PASSED_ON: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1];

/// What became of a child.
enum Fate {
    /// It ended on purpose: with this exit status we end, too.
    Over(i32),
    /// It died, for this reason.
    Died(String),
}

/// Runs `daemon` in a child, again and again. `say` tells of its deaths. Returns the exit status.
///
/// Must be called before any thread is started.
pub fn run(daemon: impl Fn() -> i32, say: impl Fn(&str)) -> nix::Result<i32> {
    let mut signals = SigSet::empty();
    PASSED_ON.iter().chain([&Signal::SIGCHLD]).for_each(|&signal| signals.add(signal));
    signals.thread_block()?;
    let inbox = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let parent = nix::unistd::getpid();
    let mut pause = FIRST_PAUSE;
    let mut proven = false;
    loop {
        let started = Instant::now();
        // SAFETY: there is one thread, so the child may do whatever the parent might.
        let child = match unsafe { fork() }? {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                drop(inbox);
                // The daemon takes its signals as events. Until it is ready to, they wait: blocked they stay.
                let mut own = SigSet::empty();
                own.add(Signal::SIGCHLD);
                own.thread_unblock()?;
                // A supervisor that is killed takes its daemon with it: an orphan would hold the port for ever.
                let _ = prctl::set_pdeathsig(Signal::SIGTERM);
                if getppid() != parent {
                    return Ok(0);
                }
                return Ok(daemon());
            }
        };
        match watch(child, &inbox)? {
            Fate::Over(CANNOT_START) if proven => say("the daemon cannot start; trying again"),
            Fate::Over(status) => return Ok(status),
            Fate::Died(why) => say(&format!("the daemon {why}; starting it anew in {pause:?}")),
        }
        if started.elapsed() >= PROVEN {
            pause = FIRST_PAUSE;
        }
        proven = true;
        if wait(&inbox, pause)? {
            return Ok(0);
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Closes all descriptors above the three standard ones. Those that the parent process left open would stay open for
/// years, the lock of a package manager among them. Best effort; errors are ignored.
///
/// Must be called before anything opens a descriptor to keep: its number would later stand for another file or none.
pub fn close_inherited() {
    // Reading the directory takes a descriptor of its own, which is gone before the first is closed.
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else { return };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<RawFd>().ok());
    let numbers: Vec<RawFd> = numbers.filter(|&number| number > 2).collect();
    for number in numbers {
        let _ = nix::unistd::close(number);
    }
}

/// Passes signals on until the child ends. Once it was told to end, it is not missed, however it does.
fn watch(child: Pid, inbox: &SignalFd) -> nix::Result<Fate> {
    let mut told_to_end = false;
    loop {
        let fate = match waitpid(child, Some(WaitPidFlag::WNOHANG))? {
            WaitStatus::Exited(_, status @ (0 | CANNOT_START)) => Some(Fate::Over(status)),
            WaitStatus::Exited(_, status) => Some(Fate::Died(format!("ended with status {status}"))),
            WaitStatus::Signaled(_, signal, _) => Some(Fate::Died(format!("was killed by {signal}"))),
            _ => None,
        };
        match fate {
            Some(Fate::Died(_)) if told_to_end => return Ok(Fate::Over(0)),
            Some(fate) => return Ok(fate),
            None => {}
        }
        while let Some(signal) = next_signal(inbox, PollTimeout::NONE)? {
            if signal == Signal::SIGCHLD {
                break;
            }
            told_to_end |= matches!(signal, Signal::SIGTERM | Signal::SIGINT);
            // It may have ended just now; then there is a SIGCHLD, too.
            let _ = kill(child, signal);
        }
    }
}

/// Waits for `pause`. True where a signal says that it is over.
fn wait(inbox: &SignalFd, pause: Duration) -> nix::Result<bool> {
    let until = Instant::now() + pause;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        if let Some(Signal::SIGTERM | Signal::SIGINT) = next_signal(inbox, timeout)? {
            return Ok(true);
        }
    }
}

/// The next signal, or `None` when time is up.
fn next_signal(inbox: &SignalFd, timeout: PollTimeout) -> nix::Result<Option<Signal>> {
    let mut fds = [PollFd::new(inbox.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, timeout) {
        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
        Err(error) => return Err(error),
    }
    let signal = inbox.read_signal()?;
    Ok(signal.and_then(|info| Signal::try_from(info.ssi_signo as i32).ok()))
}
