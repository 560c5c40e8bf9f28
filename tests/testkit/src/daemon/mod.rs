//! The real binary, started in a private directory, listened to and looked at from outside.
//!
//! Owns the process and its directory; both are gone after drop. Where `SOCKPROXYD` is set, it says
//! what to start, in words (`qemu-mipsel-static /path/sockproxyd`); otherwise the caller's path is started.

mod log;

use std::fs;
use std::io::BufReader;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use self::log::{Log, SharedLog};
use crate::plugin::Plugin;
use crate::process::{self, Memory};

/// How long a daemon may take to listen, an emulated one on a loaded machine included.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How a daemon is to be started. By default: `-a 127.0.0.1 -p 0`, and Luup at a port that refuses.
pub struct Builder {
    program: Vec<String>,
    luup: Option<String>,
    config: Option<String>,
    address: Option<String>,
    port: Option<u16>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    files: Vec<(String, Vec<u8>)>,
    listeners: usize,
}

impl Builder {
    fn new(program: Vec<String>) -> Builder {
        Builder {
            program,
            // Discard: nothing listens there on a machine of this century.
            luup: Some("http://127.0.0.1:9".into()),
            config: None,
            address: Some("127.0.0.1".into()),
            port: Some(0),
            args: Vec::new(),
            env: Vec::new(),
            files: Vec::new(),
            listeners: 1,
        }
    }

    /// Where Luup is (`-N`).
    pub fn luup(mut self, url: &str) -> Self {
        self.luup = Some(url.to_string());
        self
    }

    /// A configuration file (`-c`, before all other options). `{dir}` in it stands for the private directory.
    pub fn config(mut self, text: &str) -> Self {
        self.config = Some(text.to_string());
        self
    }

    /// The address to listen on (`-a`).
    pub fn address(mut self, address: &str) -> Self {
        self.address = Some(address.to_string());
        self
    }

    /// The port to listen on (`-p`) instead of 0.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Gives no `-a`, `-p` and `-N`: the configuration or [`Builder::arg`] say all.
    pub fn bare(mut self) -> Self {
        (self.address, self.port, self.luup) = (None, None, None);
        self
    }

    /// A further argument, behind all others.
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_string());
        self
    }

    /// Further arguments, behind all others.
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| arg.to_string()));
        self
    }

    /// An environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_string(), value.to_string()));
        self
    }

    /// Starts it by a shell script, which ends in `exec "$@"`: the command with all its arguments. What the
    /// script did before (limits, namespaces) holds for the daemon, whose process id stays the script's.
    pub fn within(mut self, script: &str) -> Self {
        let program = std::mem::take(&mut self.program);
        self.program = ["/bin/sh", "-c", script, "sh"].map(String::from).into_iter().chain(program).collect();
        self
    }

    /// A file in the private directory, written before the start.
    pub fn file(mut self, name: &str, content: &[u8]) -> Self {
        self.files.push((name.to_string(), content.to_vec()));
        self
    }

    /// How many `listening on` lines [`Builder::start`] waits for (1; more with `[direct]` ports).
    pub fn listeners(mut self, count: usize) -> Self {
        self.listeners = count;
        self
    }

    /// Starts it and waits until it listens.
    ///
    /// # Panics
    /// When it cannot be started, ends, or does not listen in time; the message has its log.
    #[track_caller]
    pub fn start(self) -> Daemon {
        self.try_start().unwrap_or_else(|why| panic!("{why}"))
    }

    /// As [`Builder::start`], with the reason where that panics.
    pub fn try_start(self) -> Result<Daemon, String> {
        let wanted = self.listeners;
        let daemon = self.try_spawn()?;
        let listening = |log: &Log| log.listening().len() >= wanted || log.ended;
        let log = daemon.log.wait(START_LIMIT, listening);
        let count = log.listening().len();
        drop(log);
        if count >= wanted {
            return Ok(daemon);
        }
        Err(format!("the daemon does not listen ({count} of {wanted}); it said:\n{}", daemon.log_text()))
    }

    /// Starts it without waiting for anything: for those that are to fail, or that log elsewhere.
    ///
    /// # Panics
    /// When the program cannot be run.
    #[track_caller]
    pub fn spawn(self) -> Daemon {
        self.try_spawn().unwrap_or_else(|why| panic!("{why}"))
    }

    fn try_spawn(self) -> Result<Daemon, String> {
        let dir = private_directory();
        for (name, content) in &self.files {
            fs::write(dir.join(name), content).expect("file for the daemon");
        }
        let mut command = Command::new(&self.program[0]);
        command.args(&self.program[1..]);
        if let Some(text) = &self.config {
            let file = dir.join("sockproxyd.conf");
            let text = text.replace("{dir}", &dir.to_string_lossy());
            fs::write(&file, text).expect("configuration for the daemon");
            command.arg("-c").arg(file);
        }
        if let Some(address) = &self.address {
            command.args(["-a", address]);
        }
        if let Some(port) = self.port {
            command.arg("-p").arg(port.to_string());
        }
        if let Some(url) = &self.luup {
            command.args(["-N", url]);
        }
        command.args(&self.args).envs(self.env).current_dir(&dir);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|e| format!("cannot start {:?}: {e}", self.program))?;

        let log = Arc::<SharedLog>::default();
        log.state.lock().expect("log lock").readers = 2;
        let (out, err) = (child.stdout.take().expect("stdout"), child.stderr.take().expect("stderr"));
        let (log_out, log_err) = (log.clone(), log.clone());
        thread::spawn(move || log_out.read(BufReader::new(out), true));
        thread::spawn(move || log_err.read(BufReader::new(err), false));
        Ok(Daemon { child, dir, log, status: None })
    }
}

/// A running daemon.
pub struct Daemon {
    child: Child,
    dir: PathBuf,
    log: Arc<SharedLog>,
    status: Option<ExitStatus>,
}

impl Daemon {
    /// Starts the daemon with its defaults; `path` is the binary where SOCKPROXYD does not name another.
    #[track_caller]
    pub fn start(path: &str, luup_url: &str) -> Daemon {
        Daemon::builder(path).luup(luup_url).start()
    }

    /// What to start; `path` is the binary where SOCKPROXYD does not name another.
    pub fn builder(path: &str) -> Builder {
        let words = std::env::var("SOCKPROXYD").unwrap_or_default();
        let program: Vec<String> = words.split_whitespace().map(absolute).collect();
        Builder::new(if program.is_empty() { vec![absolute(path)] } else { program })
    }

    /// As [`Daemon::builder`], but starts this binary whatever SOCKPROXYD says: to compare several.
    pub fn builder_of(path: &Path) -> Builder {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        Builder::new(vec![path.to_string_lossy().into_owned()])
    }

    /// As [`Daemon::builder_of`], by way of an emulator.
    pub fn builder_under(emulator: &str, path: &Path) -> Builder {
        let mut builder = Daemon::builder_of(path);
        builder.program.insert(0, emulator.to_owned());
        builder
    }

    /// The address of the first `listening on` line: the proxy port comes before `[direct]` ones.
    #[track_caller]
    pub fn addr(&self) -> SocketAddr {
        *self.listening().first().expect("the daemon has said no `listening on`")
    }

    /// The port of [`Daemon::addr`].
    #[track_caller]
    pub fn port(&self) -> u16 {
        self.addr().port()
    }

    /// The addresses of all `listening on` lines, in order.
    pub fn listening(&self) -> Vec<SocketAddr> {
        self.log.lock().listening()
    }

    /// A plugin that has connected and read the greeting.
    #[track_caller]
    pub fn plugin(&self) -> Plugin {
        Plugin::connect(self.addr())
    }

    /// Process id (the emulator's, where there is one; the supervisor's with `--supervise`).
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its children (with `--supervise`: the daemon proper).
    pub fn children(&self) -> Vec<u32> {
        process::children(self.pid())
    }

    /// Its private directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Memory now.
    #[track_caller]
    pub fn memory(&self) -> Memory {
        process::memory(self.pid()).expect("memory of the daemon")
    }

    /// Open descriptors now.
    #[track_caller]
    pub fn descriptors(&self) -> usize {
        process::descriptors(self.pid()).expect("descriptors of the daemon")
    }

    /// Threads now.
    #[track_caller]
    pub fn threads(&self) -> usize {
        process::threads(self.pid()).expect("threads of the daemon")
    }

    /// Processor time so far, user and system.
    #[track_caller]
    pub fn cpu_time(&self) -> Duration {
        process::cpu_time(self.pid()).expect("processor time of the daemon")
    }

    /// Sends a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("pid"));
        kill(pid, signal).expect("signal to the daemon");
    }

    /// Waits for its end; None when time ran out.
    pub fn wait_exit(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        // Both pipes closed: it has ended, or is about to. Children may hold them open: look now and then.
        while self.status.is_none() {
            self.status = self.child.try_wait().expect("wait for the daemon");
            let left = timeout.checked_sub(start.elapsed());
            let Some(left) = left.filter(|_| self.status.is_none()) else { break };
            let ended = self.log.wait(left.min(Duration::from_millis(20)), |log| log.ended).ended;
            if ended {
                thread::sleep(Duration::from_millis(1));
            }
        }
        self.status
    }

    /// What it said so far, on stderr and stdout, in lines.
    pub fn log_lines(&self) -> Vec<String> {
        self.log.lock().lines.clone()
    }

    /// What it said so far, as text.
    pub fn log_text(&self) -> String {
        self.log_lines().join("\n")
    }

    /// What it said on stdout only (`-h`, `--version`), when it has ended.
    pub fn stdout_text(&self) -> String {
        self.log.lock().stdout.join("\n")
    }

    /// Waits for a line that `wanted` accepts (said before or later); that line.
    ///
    /// # Panics
    /// When it does not come in time; the message has the log.
    #[track_caller]
    pub fn wait_for_log(&self, timeout: Duration, wanted: impl Fn(&str) -> bool) -> String {
        let find = |log: &Log| log.lines.iter().find(|line| wanted(line)).cloned();
        let found = find(&self.log.wait(timeout, |log| find(log).is_some()));
        found.unwrap_or_else(|| panic!("not in the log within {timeout:?}; it is:\n{}", self.log_text()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the daemon's log ---\n{}\n---", self.log_text());
        }
        if self.wait_exit(Duration::ZERO).is_none() {
            // From the leaves: a supervisor would else start a new one, or leave one behind.
            let family = process::family(self.pid());
            self.child.kill().ok();
            for pid in family.into_iter().skip(1) {
                kill(Pid::from_raw(pid as i32), Signal::SIGKILL).ok();
            }
            self.child.wait().ok();
        }
        fs::remove_dir_all(&self.dir).ok();
    }
}

/// The program is run in another directory: a relative path with a slash is made absolute.
fn absolute(word: &str) -> String {
    let path = Path::new(word);
    if !word.contains('/') || path.is_absolute() {
        return word.to_string();
    }
    path.canonicalize().map_or_else(|_| word.to_string(), |path| path.to_string_lossy().into_owned())
}

fn private_directory() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("sockproxyd-lab-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let dir = std::env::temp_dir().join(name);
    fs::create_dir_all(&dir).expect("private directory");
    dir
}

#[cfg(test)]
mod tests;
