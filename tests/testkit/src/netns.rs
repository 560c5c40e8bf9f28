//! Network namespaces of a test's own: networks between them, commands and sockets inside them, and their outages.
//!
//! A namespace lives as long as its [`Netns`], or as the test's process: a helper process holds it, and ends at the end of
//! its standard input. Nothing is mounted and no name is left behind. It takes root, `unshare` and `nsenter` (util-linux)
//! and `ip` (iproute2).
//!
//! ```no_run
//! # use testkit::netns::{self, Netns};
//! if !netns::available() {
//!     return; // it has printed why the test is skipped
//! }
//! let (home, device) = (Netns::new(), Netns::new());
//! home.connect("eth0", "198.51.100.1/24", &device, "eth0", "198.51.100.2/24");
//! let socket = device.run(|| std::net::UdpSocket::bind("198.51.100.2:1900").expect("a socket"));
//! home.ip("link set eth0 down"); // an outage
//! ```

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

/// Time until an interface must be in operation, enough for a loaded machine.
const UP_LIMIT: Duration = Duration::from_secs(30);

/// A network namespace. Dropping it ends it, with its interfaces; processes inside it keep it alive without them.
pub struct Netns {
    holder: Child,
}

/// True if tests may make namespaces and networks between them. If not, prints that the test is skipped, and why.
pub fn available() -> bool {
    let attempt = || {
        let (one, other) = (Netns::try_new()?, Netns::try_new()?);
        one.try_ip(&format!("link add test0 type veth peer name test0 netns {}", other.pid()))
    };
    attempt().inspect_err(|why| println!("skipped: no network namespaces here: {why}")).is_ok()
}

impl Netns {
    /// A namespace with nothing but its loopback interface, which is up. Addresses of IPv6 are usable at once: there is no
    /// duplicate address detection.
    ///
    /// # Panics
    /// If there can be none: see [`available`].
    #[track_caller]
    #[allow(clippy::new_without_default, reason = "it starts a process")]
    pub fn new() -> Netns {
        Self::try_new().unwrap_or_else(|why| panic!("no network namespace: {why}"))
    }

    fn try_new() -> Result<Netns, String> {
        // The kernel may have no IPv6.
        let script = "ip link set lo up && \
                      for kind in all default; do \
                      echo 0 2>/dev/null >/proc/sys/net/ipv6/conf/$kind/accept_dad; done; echo ready; exec cat";
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", script]);
        let mut holder = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let mut line = String::new();
        let stdout = holder.stdout.take().ok_or("no standard output")?;
        BufReader::new(stdout).read_line(&mut line).map_err(|error| error.to_string())?;
        if line == "ready\n" {
            return Ok(Netns { holder });
        }
        let output = holder.wait_with_output().map_err(|error| error.to_string())?;
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }

    /// The process that holds the namespace, as `ip link set ... netns` takes it.
    pub fn pid(&self) -> u32 {
        self.holder.id()
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.pid())
    }

    /// Connects two namespaces by a cable: an interface `name` here and `peer_name` there, both up, with these addresses
    /// (`198.51.100.1/24`; several are separated by blanks). Returns when both are in operation.
    ///
    /// # Panics
    /// If ip(8) refuses.
    #[track_caller]
    pub fn connect(&self, name: &str, addresses: &str, peer: &Netns, peer_name: &str, peer_addresses: &str) {
        self.ip(&format!("link add {name} type veth peer name {peer_name} netns {}", peer.pid()));
        for (namespace, name, addresses) in [(self, name, addresses), (peer, peer_name, peer_addresses)] {
            namespace.ip(&format!("link set {name} up"));
            for address in addresses.split_whitespace() {
                // Without a broadcast address, there are no directed broadcasts.
                let options = if address.contains(':') { "nodad" } else { "broadcast +" };
                namespace.ip(&format!("address add {address} {options} dev {name}"));
            }
        }
        self.wait_up(name);
        peer.wait_up(peer_name);
    }

    /// Waits until an interface is in operation. The kernel notes the carrier of a cable late, at most once a second, and
    /// gives IPv6 its routes only then.
    #[track_caller]
    fn wait_up(&self, name: &str) {
        let start = Instant::now();
        loop {
            let shown = self.command("ip").args(["-o", "link", "show", "dev", name]).output().expect("ip");
            if String::from_utf8_lossy(&shown.stdout).contains(" state UP ") {
                return;
            }
            assert!(start.elapsed() < UP_LIMIT, "{name} is not up within {UP_LIMIT:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Runs ip(8) inside, with these arguments.
    ///
    /// # Panics
    /// If it fails; the message has its words.
    #[track_caller]
    pub fn ip(&self, arguments: &str) {
        self.try_ip(arguments).unwrap_or_else(|why| panic!("ip {arguments}: {why}"));
    }

    fn try_ip(&self, arguments: &str) -> Result<(), String> {
        let output = self.command("ip").args(arguments.split_whitespace()).output();
        let output = output.map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }

    /// A command that runs inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg(program);
        command
    }

    /// The script by which [`crate::daemon::Builder::within`] starts the daemon inside. To connect to it takes
    /// [`Netns::run`].
    pub fn script(&self) -> String {
        format!("exec nsenter --net={} \"$@\"", self.path())
    }

    /// Runs a function inside, on a thread of its own. The sockets that it makes stay inside, and may be used anywhere.
    ///
    /// # Panics
    /// If the function does, or the namespace has gone.
    pub fn run<T: Send>(&self, function: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(self.path()).expect("the namespace");
        let inside = || {
            setns(namespace, CloneFlags::CLONE_NEWNET).expect("setns");
            function()
        };
        thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn namespaces_are_connected_by_what_the_test_connects_them_by() {
        if !available() {
            return;
        }
        let (home, device) = (Netns::new(), Netns::new());
        home.connect("eth0", "198.51.100.1/24", &device, "eth1", "198.51.100.2/24");
        let socket = device.run(|| UdpSocket::bind("198.51.100.2:1900").unwrap());
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let asker = home.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        asker.send_to(b"hello", "198.51.100.2:1900").unwrap();
        let (length, sender) = socket.recv_from(&mut [0; 10]).unwrap();
        assert_eq!((length, sender.ip().to_string()), (5, "198.51.100.1".into()));
        home.ip("link set eth0 down");
        assert!(asker.send_to(b"hello", "198.51.100.2:1900").is_err(), "an outage");
        let shown = device.command("cat").arg("/proc/net/dev").output().unwrap();
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.contains("eth1") && !shown.contains("eth0"), "{shown}");
        assert!(UdpSocket::bind("198.51.100.2:0").is_err(), "nothing shows outside");
    }
}
