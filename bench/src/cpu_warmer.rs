//! Keeps the processors awake while single round trips are timed.
//!
//! A processor with nothing to do goes to sleep, and in a virtual machine waking it costs more than all
//! that is measured: round trips of 30 us become 120 us, or not, as the scheduler happens to place the
//! two processes. So a child of the lowest class there is (SCHED_IDLE) runs on each processor: whoever
//! else wants it takes it at once.

use std::io;
use std::process::{Child, Command, Stdio};

use nix::unistd::getppid;

/// The processors are awake while this lives.
pub struct Awake {
    spinners: Vec<Child>,
}

impl Awake {
    /// Starts a spinner for each processor, by way of util-linux's chrt.
    pub fn start() -> io::Result<Awake> {
        let program = std::env::current_exe()?;
        let parent = std::process::id().to_string();
        let mut awake = Awake { spinners: Vec::new() };
        for _ in 0..std::thread::available_parallelism()?.get() {
            let mut command = Command::new("chrt");
            command.args(["--idle", "0"]).arg(&program).arg("spin").arg(parent.as_str()).stdin(Stdio::null());
            awake.spinners.push(command.spawn()?);
        }
        Ok(awake)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        for spinner in &mut self.spinners {
            spinner.kill().ok();
            spinner.wait().ok();
        }
    }
}

/// What a spinner does: nothing, until `parent` has gone (or was gone already).
pub fn spin(parent: i32) {
    while getppid().as_raw() == parent {
        for _ in 0..1_000_000 {
            std::hint::spin_loop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spinner_ends_with_its_parent() {
        // `sh` starts one in the background, of this very test program, and leaves it an orphan.
        if let Ok(parent) = std::env::var("LAB_SPIN") {
            return spin(parent.parse().unwrap());
        }
        let me = std::env::current_exe().unwrap();
        let output = Command::new("sh")
            .args(["-c", "LAB_SPIN=$$ \"$0\" --exact bench::awake::tests::a_spinner_ends_with_its_parent & sleep 0.1"])
            .arg(me)
            // Held open by the spinner: the output is complete when that has ended.
            .output()
            .unwrap();
        assert!(output.status.success());
    }
}
