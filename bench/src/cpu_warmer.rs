//! Keeps the processors out of their idle states while single round trips are timed.
//!
//! An idle processor goes to sleep, and in a virtual machine the wake-up costs more than the measured work: round trips
//! of 30 us become 120 us or not, depending on where the scheduler places the two processes. One child process for each
//! processor therefore spins under SCHED_IDLE, the lowest scheduling class: any other process preempts it at once.

use std::io;
use std::process::{Child, Command, Stdio};

use nix::unistd::getppid;

/// Keeps the processors awake until it is dropped.
pub struct CpuWarmer {
    spinners: Vec<Child>,
}

impl CpuWarmer {
    /// Starts one spinner for each processor by util-linux's chrt.
    pub fn start() -> io::Result<CpuWarmer> {
        let program = std::env::current_exe()?;
        let parent = std::process::id().to_string();
        let mut warmer = CpuWarmer { spinners: Vec::new() };
        for _ in 0..std::thread::available_parallelism()?.get() {
            let mut command = Command::new("chrt");
            command.args(["--idle", "0"]).arg(&program).arg("spin").arg(parent.as_str()).stdin(Stdio::null());
            warmer.spinners.push(command.spawn()?);
        }
        Ok(warmer)
    }
}

impl Drop for CpuWarmer {
    fn drop(&mut self) {
        for spinner in &mut self.spinners {
            spinner.kill().ok();
            spinner.wait().ok();
        }
    }
}

/// Spins until `parent` has ended.
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
        // `sh` starts this test program in the background as a spinner and exits, which orphans the spinner.
        if let Ok(parent) = std::env::var("BENCH_SPIN") {
            return spin(parent.parse().unwrap());
        }
        let test_program = std::env::current_exe().unwrap();
        let output = Command::new("sh")
            .args(["-c", "BENCH_SPIN=$$ \"$0\" --exact cpu_warmer::tests::a_spinner_ends_with_its_parent & sleep 0.1"])
            .arg(test_program)
            // The spinner holds the pipe open, so the output is complete only when the spinner has ended.
            .output()
            .unwrap();
        assert!(output.status.success());
    }
}
