//! An elastic pool of threads for what the loop must not do: what can only block (names, notifications), and what takes
//! long (TLS handshakes).
//!
//! A thread is started when a job finds none idle, up to a bound, and ends when it has had nothing to do for a while.
//! Results wait until they are fetched; the loop is woken for them.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A thread with nothing to do ends after this, but for the last one.
const IDLE: Duration = Duration::from_secs(20);

/// A pool that turns jobs `J` into results `R`.
pub struct Workers<J, R> {
    shared: Arc<Shared<J, R>>,
}

/// What a pool is made of.
pub struct Pool<J, R> {
    /// The threads' name.
    pub name: &'static str,
    /// The most threads at once.
    pub most: usize,
    /// Stack of a thread in bytes. Memory that is not touched costs nothing.
    pub stack: usize,
    /// How much a thread stands back for others, the loop among them: what is added to its niceness. For those that
    /// compute; who only waits needs none.
    pub nice: i32,
    /// What a thread does.
    pub work: Box<dyn Fn(J) -> R + Send + Sync>,
    /// Called from a thread whenever there is a result.
    pub wake: Box<dyn Fn() + Send + Sync>,
}

struct Shared<J, R> {
    pool: Pool<J, R>,
    queue: Mutex<Queue<J>>,
    /// Rung when a job is queued, or at the end.
    job: Condvar,
    results: Mutex<Vec<R>>,
}

struct Queue<J> {
    jobs: VecDeque<J>,
    most: usize,
    threads: usize,
    idle: usize,
    ended: bool,
}

impl<J: Send + 'static, R: Send + 'static> Workers<J, R> {
    /// A pool without threads yet.
    pub fn new(pool: Pool<J, R>) -> Self {
        let queue = Queue { jobs: VecDeque::new(), most: pool.most.max(1), threads: 0, idle: 0, ended: false };
        let shared = Shared { pool, queue: Mutex::new(queue), job: Condvar::new(), results: Mutex::default() };
        Self { shared: Arc::new(shared) }
    }

    /// Queues a job. It is given back where there is no thread and none can be had.
    pub fn submit(&self, job: J) -> Result<(), J> {
        let mut queue = lock(&self.shared.queue);
        queue.jobs.push_back(job);
        if queue.idle < queue.jobs.len() && queue.threads < queue.most {
            let shared = Arc::clone(&self.shared);
            let pool = &self.shared.pool;
            let thread = std::thread::Builder::new().name(pool.name.into()).stack_size(pool.stack);
            match thread.spawn(move || shared.serve()) {
                Ok(_) => queue.threads += 1,
                Err(error) => {
                    log::warn!("no further thread for {}: {error}", pool.name);
                    if queue.threads == 0
                        && let Some(job) = queue.jobs.pop_back()
                    {
                        return Err(job);
                    }
                }
            }
        }
        // Those that are at work look for more by themselves. Who is woken finds the queue unlocked.
        let rings = queue.idle > 0;
        drop(queue);
        if rings {
            self.shared.job.notify_one();
        }
        Ok(())
    }

    /// The results since the last call.
    pub fn take_results(&self) -> Vec<R> {
        std::mem::take(&mut lock(&self.shared.results))
    }

    /// Changes the bound on threads; those that are too many end as soon as they have done what they are at.
    pub fn set_most(&self, most: usize) {
        lock(&self.shared.queue).most = most.max(1);
        self.shared.job.notify_all();
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        lock(&self.shared.queue).threads
    }
}

impl<J, R> Drop for Workers<J, R> {
    fn drop(&mut self) {
        lock(&self.shared.queue).ended = true;
        self.shared.job.notify_all();
    }
}

impl<J, R> Shared<J, R> {
    fn serve(&self) {
        if self.pool.nice > 0 {
            stand_back(self.pool.nice);
        }
        while let Some(job) = self.next_job() {
            let result = (self.pool.work)(job);
            lock(&self.results).push(result);
            (self.pool.wake)();
        }
    }

    /// Waits for a job. `None`: this thread is not needed any more.
    fn next_job(&self) -> Option<J> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.ended {
                return None;
            }
            if queue.threads > queue.most {
                queue.threads -= 1;
                // What this one was woken for is for another.
                self.job.notify_one();
                return None;
            }
            if let Some(job) = queue.jobs.pop_front() {
                return Some(job);
            }
            queue.idle += 1;
            let (waited, timeout) = self.job.wait_timeout(queue, IDLE).unwrap_or_else(PoisonError::into_inner);
            queue = waited;
            queue.idle -= 1;
            if timeout.timed_out() && queue.jobs.is_empty() && queue.threads > 1 {
                queue.threads -= 1;
                return None;
            }
        }
    }
}

/// Adds to the niceness of this thread alone, as Linux has it. Failure is no harm.
fn stand_back(by: i32) {
    // SAFETY: a number goes in and a number comes out.
    unsafe { nix::libc::nice(by) };
}

/// Locks `mutex`. A poisoned one means that another thread panicked; what is guarded here is whole all the same.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn has_as_many_threads_as_it_needs_and_no_more() {
        let (woken, wake) = mpsc::channel();
        let (started, starts) = mpsc::channel();
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock().unwrap();
        let inside = Arc::clone(&gate);
        let workers = Workers::new(Pool {
            name: "test",
            most: 3,
            stack: 64 * 1024,
            nice: 0,
            work: Box::new(move |job: u32| {
                let _ = started.send(());
                drop(inside.lock());
                job * 2
            }),
            wake: Box::new(move || {
                let _ = woken.send(());
            }),
        });
        assert_eq!(workers.threads(), 0);
        for job in 0..10 {
            workers.submit(job).unwrap();
        }
        (0..3).for_each(|_| starts.recv().unwrap());
        assert_eq!(workers.threads(), 3);
        drop(closed);
        (0..10).for_each(|_| wake.recv().unwrap());
        let mut results = workers.take_results();
        results.sort_unstable();
        assert_eq!(results, (0..10).map(|job| job * 2).collect::<Vec<_>>());
        assert_eq!(workers.threads(), 3);
        workers.set_most(1);
        let start = std::time::Instant::now();
        while workers.threads() > 1 {
            assert!(start.elapsed() < IDLE / 2, "those that are too many go on");
            std::thread::sleep(Duration::from_millis(1));
        }
        workers.submit(21).unwrap();
        wake.recv().unwrap();
        assert_eq!(workers.take_results(), [42]);
    }

    #[test]
    fn who_computes_stands_back_alone() {
        // The nineteenth field of stat, the seventeenth behind the name in brackets.
        let niceness = || {
            let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
            let behind = stat.rsplit_once(") ").unwrap().1;
            behind.split(' ').nth(16).unwrap().parse::<i32>().unwrap()
        };
        let own = niceness();
        let (woken, wake) = mpsc::channel();
        let workers = Workers::new(Pool {
            name: "test",
            most: 1,
            stack: 64 * 1024,
            nice: 3,
            work: Box::new(move |()| niceness()),
            wake: Box::new(move || {
                let _ = woken.send(());
            }),
        });
        workers.submit(()).unwrap();
        wake.recv().unwrap();
        assert_eq!((workers.take_results(), niceness()), (vec![(own + 3).min(19)], own));
    }
}
