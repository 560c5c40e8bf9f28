//! Linux 2.6.37, as far as system calls go: a seccomp filter answers every call that came later with ENOSYS.
//!
//! The kernel of the oldest boxes is not to be had for tests, but a C library or a crate that relies on a newer call
//! fails behind the filter as it fails there. New flags of old calls pass the filter.

use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::libc;

/// The last system call of Linux 2.6.37. Calls are numbered in the order in which they came, so all newer ones are
/// above.
const LAST_CALL: Option<u32> = if cfg!(target_arch = "x86_64") {
    // prlimit64; 303, name_to_handle_at, came with 2.6.39.
    Some(302)
} else if cfg!(any(target_arch = "mips", target_arch = "mips32r6")) {
    // As above, of the O32 calls.
    Some(4338)
} else {
    None
};

/// Has `command` run its program behind the filter, which the program and its children cannot leave. Returns the
/// command; starting it fails if the kernel has no seccomp or this module does not know the call numbers of this CPU.
pub fn behind_filter(command: &mut Command) -> &mut Command {
    // SAFETY: the closure makes two system calls and allocates nothing, so it may run between fork(2) and execve(2).
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(|| Ok(install()?))
    }
}

/// True if the kernel answers getrandom(2), which came with Linux 3.17.
pub fn answers_getrandom() -> bool {
    let mut byte = 0u8;
    // SAFETY: the buffer has room for the one byte that the call may write.
    #[allow(unsafe_code)]
    let result = unsafe { libc::syscall(libc::SYS_getrandom, &raw mut byte, 1, libc::GRND_NONBLOCK) };
    Errno::result(result) != Err(Errno::ENOSYS)
}

/// Puts this process behind the filter.
fn install() -> Result<(), Errno> {
    let last = LAST_CALL.ok_or(Errno::ENOTSUP)?;
    let rule = |code, yes, no, operand| libc::sock_filter { code: code as u16, jt: yes, jf: no, k: operand };
    let result = libc::SECCOMP_RET_ERRNO | Errno::ENOSYS as u32;
    let mut rules = [
        // The number of the call is the first field of seccomp_data.
        rule(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        rule(libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K, 0, 1, last),
        rule(libc::BPF_RET | libc::BPF_K, 0, 0, result),
        rule(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: rules.len() as u16, filter: rules.as_mut_ptr() };
    // SAFETY: the program and its rules live until prctl(2) has copied them.
    #[allow(unsafe_code)]
    unsafe {
        // Without it only root may install a filter.
        Errno::result(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
        Errno::result(libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program))?;
    }
    Ok(())
}
