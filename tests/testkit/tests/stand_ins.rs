//! `lab device`, `lab luup` and `lab load`, run as people run them.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

struct Lab {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Lab {
    fn start(args: &[&str]) -> Lab {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        let mut child = command.args(args).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Lab { child, out }
    }

    /// Reads on to a line that has `wanted`; what is behind that.
    fn wait_for(&mut self, wanted: &str) -> String {
        for line in self.out.by_ref().lines() {
            if let Some((_, rest)) = line.unwrap().split_once(wanted) {
                return rest.to_string();
            }
        }
        panic!("it ended without {wanted:?}");
    }

    fn connect(&mut self) -> TcpStream {
        let port: u16 = self.wait_for("listening on 127.0.0.1:").parse().unwrap();
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn the_device_talks_answers_and_leaves() {
    let mut lab = Lab::start(&["device", "--interval", "5"]);
    let mut stream = lab.connect();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().starts_with("temperature=21.5 @1"));
    assert!(lines.next().unwrap().starts_with("motion=1 @1"));
    stream.write_all(b"status\nbye\n").unwrap();
    assert!(lines.by_ref().any(|line| line.starts_with("OK status @")));
    assert!(lines.by_ref().any(|line| line.starts_with("OK bye @")));
    lab.wait_for(" said bye");
    lab.wait_for(" left");
    // Comes to an end only if the device's stream does.
    lines.for_each(drop);
}

#[test]
fn luup_shows_each_request() {
    let mut lab = Lab::start(&["luup"]);
    let mut stream = lab.connect();
    stream.write_all(b"GET /data_request?id=action&DeviceNum=5 HTTP/1.1\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(lab.wait_for("GET "), "/data_request?id=action&DeviceNum=5");
}

#[test]
fn each_load_runs_directly() {
    for (what, unit) in
        [("up", "MB/s"), ("down", "MB/s"), ("pingpong", "us"), ("twowrites", "us"), ("connects", "connects/s")]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
        command.args(["load", what, "--seconds", "0.02", "--count", "20", "--connections", "2"]);
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.trim_end().ends_with(unit), "{what}: {text}");
    }
}

#[test]
fn wrong_usage_is_told() {
    for args in [&[][..], &["nonsense"], &["load", "up", "--via", "plain"], &["bench", "--only", "nonsense"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_lab")).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(!output.stderr.is_empty());
    }
}
