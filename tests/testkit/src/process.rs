//! Memory, descriptors, processor time and children of a process, from /proc.

use std::fs;
use std::time::{Duration, Instant};

use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// Memory of a process, in kB (1024 bytes), from `/proc/PID/smaps_rollup`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident set size.
    pub rss: u64,
    /// Proportional set size: a shared page counts in part.
    pub pss: u64,
    /// Private pages that were written since they were mapped: heap and stacks, without the program's code.
    pub private_dirty: u64,
}

/// Current memory of `pid`; None if the process has ended or may not be read.
pub fn memory(pid: u32) -> Option<Memory> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse().ok()
    };
    Some(Memory { rss: field("Rss:")?, pss: field("Pss:")?, private_dirty: field("Private_Dirty:")? })
}

/// The number of open descriptors of `pid`.
pub fn descriptors(pid: u32) -> Option<usize> {
    Some(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count())
}

/// The number of threads of `pid`.
pub fn threads(pid: u32) -> Option<usize> {
    Some(fs::read_dir(format!("/proc/{pid}/task")).ok()?.count())
}

/// User and system time of all threads of `pid`, ended threads included.
pub fn cpu_time(pid: u32) -> Option<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid).ok()?)).ok()?;
    Some(Duration::from(clock.now().ok()?))
}

/// Processor time of the living threads of `pid` that are called `name`.
pub fn threads_cpu_time(pid: u32, name: &str) -> Option<Duration> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let of_name =
        tasks.filter(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name));
    let nanoseconds = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    };
    Some(Duration::from_nanos(of_name.filter_map(nanoseconds).sum()))
}

/// Measures how busy other programs keep the machine, which distorts measurements.
pub struct BackgroundLoad {
    busy: Duration,
    ours: Duration,
    start: Instant,
}

impl BackgroundLoad {
    /// Starts the measurement.
    pub fn start() -> Self {
        BackgroundLoad { busy: machine_busy(), ours: ours(), start: Instant::now() }
    }

    /// Processors that other programs have used since the start (1.0: one processor all the time). The time of a child
    /// of this process counts as other until the child has been waited for.
    pub fn processors(&self) -> f64 {
        let busy = machine_busy().saturating_sub(self.busy);
        let others = busy.saturating_sub(ours().saturating_sub(self.ours));
        others.as_secs_f64() / self.start.elapsed().as_secs_f64()
    }
}

/// Time that all processors together were not idle since boot, time stolen by the hypervisor included.
fn machine_busy() -> Duration {
    const TICKS_PER_SECOND: u64 = 100;
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = text.lines().next().unwrap_or("").split_whitespace().skip(1);
    let ticks: Vec<u64> = fields.filter_map(|field| field.parse().ok()).collect();
    // The fields are user nice system idle iowait irq softirq steal. Idle and iowait are not busy.
    let busy: u64 = ticks.iter().take(8).sum::<u64>() - ticks.iter().skip(3).take(2).sum::<u64>();
    Duration::from_millis(busy * 1000 / TICKS_PER_SECOND)
}

fn ours() -> Duration {
    use nix::sys::resource::{UsageWho, getrusage};
    let of = |who| {
        getrusage(who).map_or(Duration::ZERO, |usage| {
            let (user, system) = (usage.user_time(), usage.system_time());
            let micros = |t: nix::sys::time::TimeVal| t.tv_sec() as u64 * 1_000_000 + t.tv_usec() as u64;
            Duration::from_micros(micros(user) + micros(system))
        })
    };
    of(UsageWho::RUSAGE_SELF) + of(UsageWho::RUSAGE_CHILDREN)
}

/// Child processes of `pid`, of all its threads.
pub fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().filter_map(|w| w.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// `pid` and all its descendants.
pub fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut at = 0;
    while let Some(&parent) = all.get(at) {
        all.extend(children(parent));
        at += 1;
    }
    all
}

/// Raises this process's limit of open descriptors as far as possible and returns the new limit. Children inherit it.
pub fn raise_descriptor_limit() -> u64 {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return 0 };
    const WANTED: u64 = 65_536;
    // Only root may raise the hard limit.
    if hard < WANTED && setrlimit(Resource::RLIMIT_NOFILE, WANTED, WANTED).is_ok() {
        return WANTED;
    }
    if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_threads() {
        let own_pid = std::process::id();
        let memory = memory(own_pid).unwrap();
        assert!(memory.rss >= memory.pss && memory.pss > 100, "{memory:?}");
        assert!(threads(own_pid).unwrap() >= 1);
    }

    #[test]
    fn descriptors_are_counted() {
        // In child processes, because other tests of this process open and close descriptors meanwhile.
        let count_of = |script: &str| {
            let mut command = std::process::Command::new("sh");
            command.args(["-c", script]).stdin(std::process::Stdio::piped());
            let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
            let mut ready = String::new();
            let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
            std::io::BufRead::read_line(&mut out, &mut ready).unwrap();
            let count = descriptors(child.id()).unwrap();
            drop(child.stdin.take());
            child.wait().unwrap();
            count
        };
        let plain = count_of("echo ready; read end");
        assert_eq!(count_of("exec 7</dev/null 8</dev/null; echo ready; read end"), plain + 2);
    }

    #[test]
    fn processor_time_grows_with_work() {
        let own_pid = std::process::id();
        let before = cpu_time(own_pid).unwrap();
        let start = Instant::now();
        let mut x = 1u64;
        while cpu_time(own_pid).unwrap() - before < Duration::from_millis(20) {
            x = x.wrapping_mul(31).wrapping_add(7);
            assert!(start.elapsed() < Duration::from_secs(20), "no progress ({x})");
        }
    }

    #[test]
    fn threads_are_selected_by_name() {
        let own_pid = std::process::id();
        assert_eq!(threads_cpu_time(own_pid, "no-such-thread"), Some(Duration::ZERO));
        let busy = move || {
            let start = Instant::now();
            while threads_cpu_time(own_pid, "testkit-busy").unwrap() < Duration::from_millis(5) {
                assert!(start.elapsed() < Duration::from_secs(20), "no progress");
            }
        };
        std::thread::Builder::new().name("testkit-busy".into()).spawn(busy).unwrap().join().unwrap();
    }

    #[test]
    fn children_are_found() {
        let mut child = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        assert!(family(std::process::id()).contains(&child.id()));
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
