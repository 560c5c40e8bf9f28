//! The built binary, started in a private directory and observed from outside.
//!
//! [`Daemon`] owns the process and its directory; drop removes both. `SOCKPROXYD`, if set, is the command to start,
//! separated by blanks (`qemu-mipsel-static /path/sockproxyd`); otherwise the path that the caller gives is started.

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
use crate::old_kernel;
use crate::plugin::Plugin;
use crate::process::{self, Memory};

/// Time until a daemon must listen, enough for an emulated one on a loaded machine.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The command line, files and environment of a daemon. Default: `-a 127.0.0.1 -p 0`, and a Luup port that refuses.
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
    old_kernel: bool,
}

impl Builder {
    fn new(program: Vec<String>) -> Builder {
        Builder {
            program,
            // The discard service, which no current machine runs.
            luup: Some("http://127.0.0.1:9".into()),
            config: None,
            address: Some("127.0.0.1".into()),
            port: Some(0),
            args: Vec::new(),
            env: Vec::new(),
            files: Vec::new(),
            listeners: 1,
            old_kernel: false,
        }
    }

    /// The URL of Luup (`-N`).
    pub fn luup(mut self, url: &str) -> Self {
        self.luup = Some(url.to_string());
        self
    }

    /// A configuration file (`-c`, before all other options). `{dir}` in it is replaced by the private directory.
    pub fn config(mut self, text: &str) -> Self {
        self.config = Some(text.to_string());
        self
    }

    /// The address to listen on (`-a`).
    pub fn address(mut self, address: &str) -> Self {
        self.address = Some(address.to_string());
        self
    }

    /// The port to listen on (`-p`), instead of 0.
    pub fn port(mut self, port: u16) -> Self {
        self.port = Some(port);
        self
    }

    /// Omits `-a`, `-p` and `-N`: the configuration or [`Builder::arg`] gives them.
    pub fn bare(mut self) -> Self {
        (self.address, self.port, self.luup) = (None, None, None);
        self
    }

    /// A further argument, after all others.
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_string());
        self
    }

    /// Further arguments, after all others.
    pub fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|arg| arg.to_string()));
        self
    }

    /// An environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_string(), value.to_string()));
        self
    }

    /// Starts the daemon from a shell script, which ends in `exec "$@"`: the command with all its arguments. Limits and
    /// namespaces that the script sets apply to the daemon, which keeps the script's process id.
    pub fn within(mut self, script: &str) -> Self {
        let program = std::mem::take(&mut self.program);
        self.program = ["/bin/sh", "-c", script, "sh"].map(String::from).into_iter().chain(program).collect();
        self
    }

    /// Starts the daemon behind the filter of [`crate::old_kernel`].
    pub fn old_kernel(mut self) -> Self {
        self.old_kernel = true;
        self
    }

    /// Writes a file into the private directory before the start.
    pub fn file(mut self, name: &str, content: &[u8]) -> Self {
        self.files.push((name.to_string(), content.to_vec()));
        self
    }

    /// The number of `listening on` lines that [`Builder::start`] waits for (default: 1; `[direct]` ports add more).
    pub fn listeners(mut self, count: usize) -> Self {
        self.listeners = count;
        self
    }

    /// Starts the daemon and waits until it listens.
    ///
    /// # Panics
    /// If it cannot be started, exits, or does not listen in time; the message contains its log.
    #[track_caller]
    pub fn start(self) -> Daemon {
        self.try_start().unwrap_or_else(|why| panic!("{why}"))
    }

    /// As [`Builder::start`], but returns the reason where that panics.
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
        Err(format!("the daemon does not listen ({count} of {wanted}); its log:\n{}", daemon.log_text()))
    }

    /// Starts the daemon without waiting: for runs that fail, and for logs that go elsewhere.
    ///
    /// # Panics
    /// If the program cannot be started.
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
        if self.old_kernel {
            old_kernel::behind_filter(&mut command);
        }
        let mut child = command.spawn().map_err(|e| format!("cannot start {:?}: {e}", self.program))?;

        let log = Arc::<SharedLog>::default();
        log.state.lock().expect("log lock").readers = 2;
        let (out, err) = (child.stdout.take().expect("stdout"), child.stderr.take().expect("stderr"));
        let (log_out, log_err) = (log.clone(), log.clone());
        thread::spawn(move || log_out.read(BufReader::new(out)));
        thread::spawn(move || log_err.read(BufReader::new(err)));
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
    /// Starts the daemon with its defaults; `path` is the binary unless SOCKPROXYD names another.
    #[track_caller]
    pub fn start(path: &str, luup_url: &str) -> Daemon {
        Daemon::builder(path).luup(luup_url).start()
    }

    /// A builder; `path` is the binary unless SOCKPROXYD names another.
    pub fn builder(path: &str) -> Builder {
        let words = std::env::var("SOCKPROXYD").unwrap_or_default();
        let program: Vec<String> = words.split_whitespace().map(absolute).collect();
        Builder::new(if program.is_empty() { vec![absolute(path)] } else { program })
    }

    /// As [`Daemon::builder`], but ignores SOCKPROXYD: for comparisons of several binaries.
    pub fn builder_of(path: &Path) -> Builder {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        Builder::new(vec![path.to_string_lossy().into_owned()])
    }

    /// As [`Daemon::builder_of`], under an emulator.
    pub fn builder_under(emulator: &str, path: &Path) -> Builder {
        let mut builder = Daemon::builder_of(path);
        builder.program.insert(0, emulator.to_owned());
        builder
    }

    /// The address in the first `listening on` line: the proxy port comes before `[direct]` ports.
    #[track_caller]
    pub fn addr(&self) -> SocketAddr {
        *self.listening().first().expect("the log has no `listening on`")
    }

    /// The port of [`Daemon::addr`].
    #[track_caller]
    pub fn port(&self) -> u16 {
        self.addr().port()
    }

    /// The addresses in all `listening on` lines, in order.
    pub fn listening(&self) -> Vec<SocketAddr> {
        self.log.lock().listening()
    }

    /// Connects a plugin and reads the greeting.
    #[track_caller]
    pub fn plugin(&self) -> Plugin {
        Plugin::connect(self.addr())
    }

    /// The process id: the emulator's under an emulator, the supervisor's with `--supervise`.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its child processes; with `--supervise` the daemon proper.
    pub fn children(&self) -> Vec<u32> {
        process::children(self.pid())
    }

    /// Its private directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Current memory.
    #[track_caller]
    pub fn memory(&self) -> Memory {
        process::memory(self.pid()).expect("memory of the daemon")
    }

    /// The current number of open descriptors.
    #[track_caller]
    pub fn descriptors(&self) -> usize {
        process::descriptors(self.pid()).expect("descriptors of the daemon")
    }

    /// The current number of threads.
    #[track_caller]
    pub fn threads(&self) -> usize {
        process::threads(self.pid()).expect("threads of the daemon")
    }

    /// User and system time so far.
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

    /// Waits until it exits; None on timeout.
    pub fn wait_exit(&mut self, timeout: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        // Closed pipes mean that it has exited or is about to. Children may hold the pipes open, hence the short waits.
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

    /// The lines of stderr and stdout so far.
    pub fn log_lines(&self) -> Vec<String> {
        self.log.lock().lines.clone()
    }

    /// The text of stderr and stdout so far.
    pub fn log_text(&self) -> String {
        self.log_lines().join("\n")
    }

    /// The text of stderr and stdout with all lines that the daemon has logged until now, also those that it has not
    /// written yet. The log shows connections.
    ///
    /// # Panics
    /// If it does not show that of this call.
    pub fn complete_log_text(&self) -> String {
        let plugin = self.plugin();
        self.wait_for_log(START_LIMIT, |line| line.contains(plugin.pid()));
        self.log_text()
    }

    /// Waits for a log line, past or future, that `wanted` accepts, and returns it.
    ///
    /// # Panics
    /// If no such line comes in time; the message contains the log.
    #[track_caller]
    pub fn wait_for_log(&self, timeout: Duration, wanted: impl Fn(&str) -> bool) -> String {
        let find = |log: &Log| log.lines.iter().find(|line| wanted(line)).cloned();
        let found = find(&self.log.wait(timeout, |log| find(log).is_some()));
        found.unwrap_or_else(|| panic!("not in the log within {timeout:?}; the log:\n{}", self.log_text()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the daemon's log ---\n{}\n---", self.log_text());
        }
        if self.wait_exit(Duration::ZERO).is_none() {
            // All descendants, or a supervisor's daemon would stay behind.
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

/// Makes a relative path with a slash absolute, since the program runs in another directory.
fn absolute(word: &str) -> String {
    let path = Path::new(word);
    if !word.contains('/') || path.is_absolute() {
        return word.to_string();
    }
    path.canonicalize().map_or_else(|_| word.to_string(), |path| path.to_string_lossy().into_owned())
}

fn private_directory() -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("sockproxyd-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let dir = std::env::temp_dir().join(name);
    fs::create_dir_all(&dir).expect("private directory");
    dir
}

#[cfg(test)]
mod tests;
