//! Threads that compute in the background and give way to those that answer requests.

use std::io;
use std::thread::JoinHandle;

/// Steps below the usual priority; 19 is the least. With 10 an answering thread gets about nine tenths of a contested core.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// Starts `work` on a thread of low priority. Threads that it starts inherit that on Linux, pools of threads too.
pub(super) fn spawn_in_background<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    std::thread::Builder::new()
        .name("job".to_owned())
        .spawn(move || {
            lower_priority();
            work()
        })
}

#[cfg(target_os = "linux")]
fn lower_priority() {
    // On Linux this is the calling thread's alone, against the letter of POSIX, where it is the whole process's.
    if let Err(error) = rustix::process::nice(NICENESS) {
        tracing::warn!(%error, "the priority of a job's thread cannot be lowered");
    }
}

/// Elsewhere there is no priority of one thread alone.
#[cfg(not(target_os = "linux"))]
fn lower_priority() {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    fn niceness() -> i32 {
        rustix::process::getpriority_process(None).unwrap_or(i32::MAX)
    }

    #[test]
    fn a_job_and_the_pools_that_it_makes_have_low_priority_and_nobody_else_has() {
        let before = niceness();
        let (own, of_pool) = spawn_in_background(|| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(2)
                .build()
                .expect("pool");
            (niceness(), pool.install(niceness))
        })
        .expect("thread")
        .join()
        .expect("join");
        let low = (before + NICENESS).min(19);
        assert_eq!((own, of_pool), (low, low));
        assert_eq!(niceness(), before);
    }
}
