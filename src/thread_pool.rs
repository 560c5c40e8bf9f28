//! An elastic thread pool for work that the event loop must not do: calls that block (getaddrinfo(3), notifications)
//! and computations that take long (TLS handshakes).
//!
//! A thread is started when a job finds no idle one, up to a maximum, and ends after 20 s without a job.
//! Results are collected until [`ThreadPool::take_results`] fetches them; `wake` tells the loop that there are some.
//!
//! This is the only queue between the loop and the threads: it orders jobs by [`JobClass`], and it forgets jobs that
//! [`ThreadPool::cancel`] names.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// An idle thread ends after this time. The last thread stays.
const IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// Threads that turn jobs `J` into results `R`.
pub(crate) struct ThreadPool<J, R> {
    shared: Arc<Shared<J, R>>,
}

/// The settings of a [`ThreadPool`].
pub(crate) struct ThreadPoolSettings<J, R> {
    /// The name of the threads, as ps(1) and the log show it.
    pub name: &'static str,
    /// Threads at once; at least 1.
    pub max_threads: usize,
    /// Further threads that only urgent jobs get.
    pub urgent_threads: usize,
    /// Stack of a thread in bytes. Pages that are never touched take no memory.
    pub stack_size: usize,
    /// Added to the niceness of the threads (0 to 19). For jobs that compute, so that they do not delay the loop; jobs
    /// that wait need none.
    pub nice: i32,
    /// Performs a job, on a thread of the pool.
    pub work: Box<dyn Fn(J) -> R + Send + Sync>,
    /// Called on a thread of the pool when a result is ready.
    pub wake: Box<dyn Fn() + Send + Sync>,
}

/// When a job runs, compared with the others in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum JobClass {
    /// Before all jobs of the other classes: the job continues work that has begun, or never takes long.
    Urgent,
    /// In the order of submission.
    Normal,
    /// In the order of submission, on at most half of the threads: the job may block for long, and must leave threads
    /// to the others.
    Slow,
    /// As [`JobClass::Slow`], and on at most a quarter of the threads: the job is for a client that must leave threads even
    /// to slow jobs of others.
    Restricted,
}

/// The number of classes.
const CLASSES: usize = 4;

struct Shared<J, R> {
    settings: ThreadPoolSettings<J, R>,
    queue: Mutex<Queue<J>>,
    /// Signalled when a job is queued, when `max_threads` changes, and when the pool is dropped.
    changed: Condvar,
    results: Mutex<Vec<R>>,
}

struct Queue<J> {
    /// Urgent jobs first, then the others in the order of submission.
    jobs: VecDeque<(JobClass, J)>,
    max_threads: usize,
    threads: usize,
    urgent_threads: usize,
    /// Threads that perform a job of each class now.
    busy: [usize; CLASSES],
    shut_down: bool,
}

impl<J: Send + 'static, R: Send + 'static> ThreadPool<J, R> {
    /// A pool that has no threads yet.
    pub(crate) fn new(settings: ThreadPoolSettings<J, R>) -> Self {
        let queue = Queue {
            jobs: VecDeque::new(),
            max_threads: settings.max_threads.max(1),
            urgent_threads: settings.urgent_threads,
            threads: 0,
            busy: [0; CLASSES],
            shut_down: false,
        };
        let shared = Shared { settings, queue: Mutex::new(queue), changed: Condvar::new(), results: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Queues a job. False if the pool has no thread and cannot start one: the job waits until a later call of
    /// [`ThreadPool::submit`] can, or until it is cancelled.
    pub(crate) fn submit(&self, class: JobClass, job: J) -> bool {
        let mut queue = lock(&self.shared.queue);
        queue.insert(class, job);
        self.shared.start_threads(&mut queue);
        let has_thread = queue.threads > 0;
        // Threads that are busy look for the next job by themselves. The lock is released first, so that the thread
        // that wakes up does not wait for it.
        let has_idle = queue.idle() > 0;
        drop(queue);
        if has_idle {
            self.shared.changed.notify_one();
        }
        has_thread
    }

    /// Removes the queued jobs for which `matches` returns true, and returns how many they were. A job that already
    /// runs is not stopped.
    pub(crate) fn cancel(&self, mut matches: impl FnMut(&J) -> bool) -> usize {
        let mut queue = lock(&self.shared.queue);
        let before = queue.jobs.len();
        queue.jobs.retain(|(_, job)| !matches(job));
        before - queue.jobs.len()
    }

    /// The results since the last call.
    pub(crate) fn take_results(&self) -> Vec<R> {
        std::mem::take(&mut lock(&self.shared.results))
    }

    /// Changes the maximum of threads. Threads in excess of it end when their jobs are done.
    pub(crate) fn set_max_threads(&self, max_threads: usize) {
        let mut queue = lock(&self.shared.queue);
        queue.max_threads = max_threads.max(1);
        self.shared.start_threads(&mut queue);
        drop(queue);
        self.shared.changed.notify_all();
    }

    /// The number of threads that run now.
    #[cfg(test)]
    pub(crate) fn threads(&self) -> usize {
        lock(&self.shared.queue).threads
    }
}

impl<J, R> Drop for ThreadPool<J, R> {
    fn drop(&mut self) {
        lock(&self.shared.queue).shut_down = true;
        self.shared.changed.notify_all();
    }
}

impl<J> Queue<J> {
    fn insert(&mut self, class: JobClass, job: J) {
        let at = match class {
            JobClass::Urgent => self.jobs.partition_point(|&(other, _)| other == JobClass::Urgent),
            JobClass::Normal | JobClass::Slow | JobClass::Restricted => self.jobs.len(),
        };
        self.jobs.insert(at, (class, job));
    }

    /// The maximum of threads, those for urgent jobs included.
    fn all_threads(&self) -> usize {
        self.max_threads + self.urgent_threads
    }

    /// Threads that wait for a job, or are about to look for one.
    fn idle(&self) -> usize {
        self.threads - self.busy.iter().sum::<usize>()
    }

    /// Jobs of `class`, and of those with tighter limits, that may begin now.
    fn slots(&self, class: JobClass) -> usize {
        let limit = match class {
            JobClass::Urgent => self.all_threads(),
            JobClass::Normal => self.max_threads,
            JobClass::Slow => self.max_threads.div_ceil(2),
            JobClass::Restricted => (self.max_threads / 4).max(1),
        };
        limit.saturating_sub(self.busy[class as usize..].iter().sum())
    }

    /// True if a job of `class` may begin now.
    fn may_begin(&self, class: JobClass) -> bool {
        let looser = [JobClass::Normal, JobClass::Slow, JobClass::Restricted].into_iter();
        looser.filter(|&limited| limited <= class).all(|limited| self.slots(limited) > 0)
    }

    /// Queued jobs that may begin now.
    fn runnable(&self) -> usize {
        let queued = |class| self.jobs.iter().filter(|&&(other, _)| other == class).count();
        let bounded = |class, tighter: usize| (queued(class) + tighter).min(self.slots(class));
        let slow = bounded(JobClass::Slow, bounded(JobClass::Restricted, 0));
        queued(JobClass::Urgent) + bounded(JobClass::Normal, slow)
    }

    fn pop(&mut self) -> Option<(JobClass, J)> {
        let at = self.jobs.iter().position(|&(class, _)| self.may_begin(class))?;
        let (class, job) = self.jobs.remove(at)?;
        self.busy[class as usize] += 1;
        Some((class, job))
    }

    fn finish(&mut self, class: JobClass) {
        self.busy[class as usize] -= 1;
    }
}

impl<J: Send + 'static, R: Send + 'static> Shared<J, R> {
    /// Starts the threads that the queue needs. If the system refuses one, the jobs wait for those that run.
    fn start_threads(self: &Arc<Self>, queue: &mut Queue<J>) {
        let settings = &self.settings;
        while queue.threads < queue.all_threads() && queue.idle() < queue.runnable() {
            let shared = Arc::clone(self);
            let thread = std::thread::Builder::new().name(settings.name.into()).stack_size(settings.stack_size);
            if let Err(error) = thread.spawn(move || shared.run()) {
                log::warn!("cannot start another thread for {}: {error}", settings.name);
                return;
            }
            queue.threads += 1;
        }
    }

    /// The body of a thread.
    fn run(self: &Arc<Self>) {
        if self.settings.nice > 0 {
            add_niceness(self.settings.nice);
        }
        while let Some((class, job)) = self.next_job() {
            let result = (self.settings.work)(job);
            lock(&self.results).push(result);
            // Before the loop wakes up: a job that it submits then needs no further thread.
            lock(&self.queue).finish(class);
            (self.settings.wake)();
        }
    }

    /// Waits for a job. `None`: the thread is to end.
    fn next_job(self: &Arc<Self>) -> Option<(JobClass, J)> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.shut_down {
                return None;
            }
            if queue.threads > queue.all_threads() {
                queue.threads -= 1;
                // This thread may have taken the signal for a job.
                self.changed.notify_one();
                return None;
            }
            if let Some(job) = queue.pop() {
                // This thread may have been idle when a job was submitted that it has not taken.
                self.start_threads(&mut queue);
                return Some(job);
            }
            let (woken, timeout) =
                self.changed.wait_timeout(queue, IDLE_TIMEOUT).unwrap_or_else(PoisonError::into_inner);
            queue = woken;
            if timeout.timed_out() && queue.runnable() == 0 && queue.threads > 1 {
                queue.threads -= 1;
                return None;
            }
        }
    }
}

/// Adds to the niceness of the calling thread. On Linux niceness belongs to a thread, not to the process (sched(7)).
/// Best effort; errors are ignored.
fn add_niceness(increment: i32) {
    // SAFETY: nice(2) takes a number and returns a number.
    unsafe { nix::libc::nice(increment) };
}

/// Locks `mutex`, poisoned or not: no code of ours panics while a guarded value is half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{self, Receiver};

    /// A pool whose jobs report their start and then wait until the test lets them finish.
    struct GatedPool {
        pool: ThreadPool<u32, u32>,
        started: Receiver<u32>,
        gate: Arc<Gate>,
        woken: Receiver<()>,
    }

    #[derive(Default)]
    struct Gate {
        released: Mutex<Vec<u32>>,
        changed: Condvar,
    }

    fn gated(max_threads: usize) -> GatedPool {
        gated_beside(max_threads, 0)
    }

    fn gated_beside(max_threads: usize, urgent_threads: usize) -> GatedPool {
        let (wake, woken) = mpsc::channel();
        let (start, started) = mpsc::channel();
        let gate = Arc::new(Gate::default());
        let inner = Arc::clone(&gate);
        let pool = ThreadPool::new(ThreadPoolSettings {
            name: "test",
            max_threads,
            urgent_threads,
            stack_size: 64 * 1024,
            nice: 0,
            work: Box::new(move |job: u32| {
                let _ = start.send(job);
                drop(inner.changed.wait_while(lock(&inner.released), |released| !released.contains(&job)));
                job * 2
            }),
            wake: Box::new(move || {
                let _ = wake.send(());
            }),
        });
        GatedPool { pool, started, gate, woken }
    }

    impl GatedPool {
        /// Waits until `jobs` more jobs have started; sorted.
        fn started(&self, jobs: usize) -> Vec<u32> {
            let mut started: Vec<u32> = (0..jobs).map(|_| self.started.recv().unwrap()).collect();
            started.sort_unstable();
            started
        }

        /// Lets `jobs` finish, and waits for their results.
        fn finish(&self, jobs: &[u32]) {
            lock(&self.gate.released).extend(jobs);
            self.gate.changed.notify_all();
            jobs.iter().for_each(|_| self.woken.recv().unwrap());
        }

        fn results(&self) -> Vec<u32> {
            let mut results = self.pool.take_results();
            results.sort_unstable();
            results
        }
    }

    #[test]
    fn starts_threads_on_demand_up_to_the_maximum() {
        let gated = gated(3);
        assert_eq!(gated.pool.threads(), 0);
        for job in 0..10 {
            assert!(gated.pool.submit(JobClass::Normal, job));
        }
        gated.started(3);
        assert_eq!(gated.pool.threads(), 3);
        gated.finish(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(gated.results(), (0..10).map(|job| job * 2).collect::<Vec<_>>());
        assert_eq!(gated.pool.threads(), 3);
        gated.pool.set_max_threads(1);
        let start = std::time::Instant::now();
        while gated.pool.threads() > 1 {
            assert!(start.elapsed() < IDLE_TIMEOUT / 2, "threads in excess of the maximum do not end");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(gated.pool.submit(JobClass::Normal, 21));
        gated.finish(&[21]);
        assert_eq!(gated.results(), [42]);
    }

    #[test]
    fn urgent_jobs_run_before_normal_ones_and_keep_their_order() {
        let gated = gated(1);
        gated.pool.submit(JobClass::Normal, 0);
        gated.started(1);
        for (class, job) in [(JobClass::Normal, 1), (JobClass::Urgent, 2), (JobClass::Normal, 3), (JobClass::Urgent, 4)]
        {
            gated.pool.submit(class, job);
        }
        gated.finish(&[0, 1, 2, 3, 4]);
        assert_eq!(gated.started.try_iter().collect::<Vec<_>>(), [2, 4, 1, 3]);
    }

    #[test]
    fn slow_jobs_take_half_of_the_threads() {
        let gated = gated(4);
        for job in 0..6 {
            gated.pool.submit(JobClass::Slow, job);
        }
        assert_eq!(gated.started(2), [0, 1]);
        assert_eq!(gated.pool.threads(), 2, "no thread is started for a job that may not begin");
        gated.pool.submit(JobClass::Normal, 7);
        assert_eq!(gated.started(1), [7], "a normal job passes slow ones");
        gated.finish(&[0, 1, 7]);
        assert_eq!(gated.started(2), [2, 3]);
        assert!(gated.started.try_recv().is_err(), "more than half of the threads run slow jobs");
        gated.finish(&[2, 3, 4, 5]);
        assert_eq!(gated.results(), [0, 2, 4, 6, 8, 10, 14]);
    }

    #[test]
    fn restricted_jobs_take_a_quarter_of_the_threads_and_leave_threads_to_slow_ones() {
        let gated = gated(8);
        for job in 0..4 {
            gated.pool.submit(JobClass::Restricted, job);
        }
        assert_eq!(gated.started(2), [0, 1]);
        for job in 10..14 {
            gated.pool.submit(JobClass::Slow, job);
        }
        assert_eq!(gated.started(2), [10, 11], "half of the threads, restricted jobs included");
        for job in 20..26 {
            gated.pool.submit(JobClass::Normal, job);
        }
        assert_eq!(gated.started(4), [20, 21, 22, 23]);
        assert_eq!(gated.pool.threads(), 8);
        gated.finish(&[10]);
        assert_eq!(gated.started(1), [12], "a restricted job must not take its place");
        gated.finish(&[0, 1, 2, 3, 11, 12, 13, 20, 21, 22, 23, 24, 25]);
        assert_eq!(gated.started(5), [2, 3, 13, 24, 25]);
        assert_eq!(gated.pool.threads(), 8);
    }

    #[test]
    fn urgent_jobs_have_threads_of_their_own() {
        let gated = gated_beside(2, 1);
        for job in 0..3 {
            gated.pool.submit(JobClass::Normal, job);
        }
        assert_eq!(gated.started(2), [0, 1]);
        assert_eq!(gated.pool.threads(), 2, "no thread is started for a job that may not begin");
        gated.pool.submit(JobClass::Urgent, 7);
        assert_eq!(gated.started(1), [7]);
        gated.finish(&[7]);
        assert!(gated.started.try_recv().is_err(), "the thread is for urgent jobs");
        gated.finish(&[0, 1, 2]);
        assert_eq!(gated.started(1), [2]);
    }

    #[test]
    fn a_cancelled_job_does_not_run() {
        let gated = gated(1);
        for job in 0..4 {
            gated.pool.submit(JobClass::Normal, job);
        }
        gated.started(1);
        assert_eq!(gated.pool.cancel(|&job| job == 0), 0, "the job runs already");
        assert_eq!(gated.pool.cancel(|&job| job == 1 || job == 2), 2);
        gated.finish(&[0, 3]);
        assert_eq!(gated.results(), [0, 6]);
    }

    #[test]
    fn niceness_is_added_to_the_threads_of_the_pool_only() {
        // Field 19 of /proc/thread-self/stat, which is field 17 after the name in parentheses (proc(5)).
        let niceness = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            let fields = stat.rsplit_once(") ").unwrap().1;
            fields.split(' ').nth(16).unwrap().parse::<i32>().unwrap()
        };
        let own = niceness();
        let (wake, woken) = mpsc::channel();
        let pool = ThreadPool::new(ThreadPoolSettings {
            name: "test",
            max_threads: 1,
            urgent_threads: 0,
            stack_size: 64 * 1024,
            nice: 3,
            work: Box::new(move |()| niceness()),
            wake: Box::new(move || {
                let _ = wake.send(());
            }),
        });
        pool.submit(JobClass::Normal, ());
        woken.recv().unwrap();
        assert_eq!((pool.take_results(), niceness()), (vec![(own + 3).min(19)], own));
    }
}
