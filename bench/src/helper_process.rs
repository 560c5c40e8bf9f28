//! A copy of this program that makes load. Most run under SCHED_IDLE, the kernel's lowest scheduling class: their load
//! takes no processor time from what is measured, and only the daemon's own work can slow that down.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use testkit::netns::Netns;

/// A running helper. Dropping it kills the process.
pub struct HelperProcess {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl HelperProcess {
    /// Starts this program with `args` by util-linux's chrt.
    pub fn start(args: &[&str]) -> io::Result<Self> {
        let mut command = Command::new("chrt");
        command.args(["--idle", "0"]).arg(std::env::current_exe()?).args(args);
        Self::spawn(command)
    }

    /// Starts this program with `args` in a network namespace, by nice(1). Under SCHED_IDLE it would do nothing on a busy
    /// machine, and the measurement would not show that.
    pub fn start_in(namespace: &Netns, args: &[&str]) -> io::Result<Self> {
        let mut command = namespace.command("nice");
        command.args(["-n", "10"]).arg(std::env::current_exe()?).args(args);
        Self::spawn(command)
    }

    fn spawn(mut command: Command) -> io::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        match child.stdout.take() {
            Some(stdout) => Ok(Self { child, stdout: BufReader::new(stdout) }),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Reads the next line of its standard output.
    pub fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        Ok(line)
    }

    /// Writes `input` to its standard input, closes that, and returns the number that the process prints last.
    pub fn finish(mut self, input: &str) -> io::Result<u64> {
        if let Some(mut stdin) = self.child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        let mut output = String::new();
        self.stdout.read_to_string(&mut output)?;
        output.trim().parse().map_err(|_| io::Error::other("the helper process failed"))
    }
}

impl Drop for HelperProcess {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
