//! A daemon in its own mount namespace, for files whose paths cannot be configured.

use std::process::{Command, Stdio};

use testkit::daemon::Builder;

/// True where a process may have mounts of its own; where not, says that the test is skipped.
pub(crate) fn may_mount() -> bool {
    let mut command = Command::new("unshare");
    command.args(["-m", "mount", "--bind", "/etc", "/etc"]).stderr(Stdio::null());
    let may = command.status().is_ok_and(|status| status.success());
    if !may {
        println!("skipped: no mount namespaces here");
    }
    may
}

/// Starts the daemon behind `mounts`, shell commands that are run in its private directory and seen by it alone.
pub(crate) fn with_mounts(daemon: Builder, mounts: &str) -> Builder {
    daemon.within(&format!("exec unshare -m sh -ec '{mounts}\nexec \"$@\"' sh \"$@\""))
}
