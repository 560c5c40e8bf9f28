//! pthread_setname_np(3) for musl, which names the calling thread only.
//!
//! The standard library names each new thread from within. musl's own would name other threads, too, by a file whose path it
//! makes with snprintf(3): nothing else needs that, and it is 11 kB. The linker takes this definition instead of musl's.

use nix::libc::{PR_SET_NAME, c_char, c_int, prctl, pthread_self, pthread_t};

/// Returns 0, or an errno: ESRCH for another thread.
///
/// # Safety
/// `name` must be a string that ends in NUL.
#[unsafe(no_mangle)]
unsafe extern "C" fn pthread_setname_np(thread: pthread_t, name: *const c_char) -> c_int {
    // SAFETY: takes nothing.
    if thread != unsafe { pthread_self() } {
        return nix::libc::ESRCH;
    }
    // SAFETY: the caller answers for `name`, of which the kernel reads at most 16 bytes.
    match unsafe { prctl(PR_SET_NAME, name) } {
        0 => 0,
        _ => nix::errno::Errno::last_raw(),
    }
}
