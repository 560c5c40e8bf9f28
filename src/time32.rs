//! clock_gettime(2) for 32-bit builds with musl, which stops at the last second that 32 bits hold.
//!
//! The standard library calls it with seconds of 32 bits. On a kernel with a 64-bit clock (Linux 5.1), musl's own fails
//! with EOVERFLOW from 2038-01-19 on, and the standard library panics: a box whose battery-backed clock is wrong would have
//! no daemon. The linker takes this definition instead of musl's.

use nix::libc::{c_int, clockid_t, timespec};

/// musl's `struct timespec` with 64-bit seconds. The nanoseconds are the low half of what follows them.
#[repr(C)]
struct Timespec64 {
    seconds: i64,
    nanoseconds: [i32; 2],
}

unsafe extern "C" {
    fn __clock_gettime64(clock: clockid_t, time: *mut Timespec64) -> c_int;
}

/// # Safety
/// `result` must be valid for a write.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: clockid_t, result: *mut timespec) -> c_int {
    let mut time = Timespec64 { seconds: 0, nanoseconds: [0; 2] };
    // SAFETY: the kernel writes to `time` alone.
    let status = unsafe { __clock_gettime64(clock, &raw mut time) };
    if status == 0 {
        let tv_nsec = time.nanoseconds[usize::from(cfg!(target_endian = "big"))];
        let tv_sec = i32::try_from(time.seconds).unwrap_or(i32::MAX);
        // SAFETY: the caller answers for it.
        unsafe { result.write(timespec { tv_sec, tv_nsec }) };
    }
    status
}
