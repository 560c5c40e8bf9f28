//! Work of this program in a process of the lowest class there is (SCHED_IDLE): what is watched meanwhile shall suffer
//! from the daemon alone.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

/// Such a process.
pub struct Aside {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Aside {
    /// Starts this program with these arguments, by way of util-linux's chrt.
    pub fn start(args: &[&str]) -> io::Result<Self> {
        let mut command = Command::new("chrt");
        command.args(["--idle", "0"]).arg(std::env::current_exe()?).args(args);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        match child.stdout.take() {
            Some(stdout) => Ok(Self { child, said: BufReader::new(stdout) }),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// The next line that it says.
    pub fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.said.read_line(&mut line)?;
        Ok(line)
    }

    /// Tells it a last word, with which its standard input ends; the number that it says then.
    pub fn end(mut self, word: &str) -> io::Result<u64> {
        if let Some(mut stdin) = self.child.stdin.take() {
            stdin.write_all(word.as_bytes())?;
        }
        let mut said = String::new();
        self.said.read_to_string(&mut said)?;
        said.trim().parse().map_err(|_| io::Error::other("handshakes failed"))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
