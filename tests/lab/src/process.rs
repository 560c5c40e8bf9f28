//! What /proc tells of a process: memory, descriptors, processor time, children.

use std::fs;
use std::time::Duration;

use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// Memory of a process, in kB (1024 bytes), from `/proc/PID/smaps_rollup`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident set.
    pub rss: u64,
    /// Proportional set: shared pages are counted in part.
    pub pss: u64,
}

/// Memory of `pid` now; None where it has gone or may not be looked at.
pub fn memory(pid: u32) -> Option<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Some(Memory { rss: field("Rss:")?, pss: field("Pss:")? })
}

/// Open descriptors of `pid`.
pub fn descriptors(pid: u32) -> Option<usize> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}

/// Threads of `pid`.
pub fn threads(pid: u32) -> Option<usize> {
    Some(fs::read_dir(format!("/proc/{pid}/task")).ok()?.count())
}

/// Processor time of `pid`, user and system, all its threads, also those that have ended (ns resolution).
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid).ok()?)).ok()?;
    Some(Duration::from(clock.now().ok()?))
}

/// Children of `pid`, of all its threads.
pub fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().filter_map(|w| w.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// `pid` and everything below it.
pub fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut at = 0;
    while let Some(&parent) = all.get(at) {
        all.extend(children(parent));
        at += 1;
    }
    all
}

/// Raises this process's limit of open descriptors as far as it goes (children inherit it); the new limit.
pub fn raise_descriptor_limit() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    const WANTED: u64 = 65_536;
    // Only root may raise the hard limit; whoever else takes what there is.
    if hard < WANTED && setrlimit(Resource::RLIMIT_NOFILE, WANTED, WANTED).is_ok() {
        return WANTED;
    }
    if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn this_process_has_memory_descriptors_and_threads() {
        let me = std::process::id();
        let memory = memory(me).unwrap();
        assert!(memory.rss >= memory.pss && memory.pss > 100, "{memory:?}");
        let before = descriptors(me).unwrap();
        let files: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        assert!(descriptors(me).unwrap() >= before + 30);
        drop(files);
        assert!(threads(me).unwrap() >= 1);
    }

    #[test]
    fn processor_time_grows_with_work() {
        let me = std::process::id();
        let before = cpu_time(me).unwrap();
        let start = Instant::now();
        let mut x = 1u64;
        while cpu_time(me).unwrap() - before < Duration::from_millis(20) {
            x = x.wrapping_mul(31).wrapping_add(7);
            assert!(start.elapsed() < Duration::from_secs(20), "no progress ({x})");
        }
    }

    #[test]
    fn children_are_seen() {
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        assert!(family(std::process::id()).contains(&child.id()));
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
