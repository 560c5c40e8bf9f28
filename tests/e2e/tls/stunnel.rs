//! stunnel between the proxy and a device whose TLS is too old: the example of docs/tls.md.

use std::io::{BufRead, BufReader, ErrorKind};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;

use testkit::ports::Reserved;

use super::openssl::{OpenSsl, refusal, self_signed};
use crate::support::{LIMIT, Scratch, started};

/// Dropping it ends the process.
struct Stunnel(Child);

impl Stunnel {
    /// Starts stunnel and waits until it listens. `None` if it is not installed.
    #[track_caller]
    fn start(config: &str) -> Option<Self> {
        let child = Command::new("stunnel").arg(config).stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut stunnel = match child {
            Ok(child) => Self(child),
            Err(error) if error.kind() == ErrorKind::NotFound => return None,
            Err(error) => panic!("stunnel: {error}"),
        };
        let stderr = BufReader::new(stunnel.0.stderr.take().unwrap());
        let (tell, lines) = channel();
        std::thread::spawn(move || stderr.lines().map_while(Result::ok).for_each(|line| drop(tell.send(line))));
        let mut log = String::new();
        while !log.contains("Configuration successful") {
            log += &lines.recv_timeout(LIMIT).unwrap_or_else(|error| panic!("{error}; stunnel says\n{log}"));
            log.push('\n');
        }
        Some(stunnel)
    }
}

impl Drop for Stunnel {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `text` with `new` in place of `old`, which must be in it.
#[track_caller]
fn replaced(text: &str, old: &str, new: &str) -> String {
    assert!(text.contains(old), "{old} is not in\n{text}");
    text.replace(old, new)
}

#[test]
fn the_documented_stunnel_leads_to_a_device_with_tls_1_0_and_static_rsa() {
    let scratch = Scratch::new();
    let (file, _) = self_signed(&scratch, "device", &["-newkey", "rsa:1024"]);
    let device = OpenSsl::serve(&["-rev", "-cert", &file, "-tls1", "-cipher", "kRSA:@SECLEVEL=0"]);
    let daemon = started();
    assert_eq!(
        refusal(&daemon, &device, "VRFY=none"),
        "no common version of TLS: the server refuses ours; stunnel can stand before it"
    );

    let document = include_str!("../../../docs/tls.md");
    let example = document.split("```ini\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let port = Reserved::new().unwrap();
    let certificate = scratch.path("device.crt");
    let mut config = example.to_owned();
    for (old, new) in [
        ("foreground = no", "foreground = yes"),
        ("pid = /var/run/stunnel-heatpump.pid", "pid ="),
        ("127.0.0.1:8884", &port.addr().to_string()),
        ("192.168.0.20:8883", &device.address),
        ("/etc/stunnel/heatpump.pem", &certificate),
    ] {
        config = replaced(&config, old, new);
    }
    let Some(_stunnel) = Stunnel::start(&scratch.write("heatpump.conf", config.as_bytes()).to_string()) else {
        eprintln!("skipped: stunnel is not installed (apt-get install stunnel4)");
        return;
    };
    let mut plugin = daemon.plugin();
    plugin.conn(port.addr(), "");
    plugin.send(b"hello\n");
    assert_eq!(plugin.line(), "olleh");
}
