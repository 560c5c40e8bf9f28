//! Third-party clients: nc, BusyBox's nc, socat and curl.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::process::Command;

use testkit::daemon::Daemon;
use testkit::device::{Device, Kind};
use testkit::luup::Luup;
use testkit::ports::Reserved;
use testkit::random::Random;

use crate::support::{LIMIT, Scratch, accepted, daemon, started};

const PROGRAMS: [(&str, &str); 4] =
    [("nc", "netcat-openbsd"), ("busybox", "busybox-static"), ("socat", "socat"), ("curl", "curl")];

/// Runs a shell script with `$PORT` set to `port`, and returns its standard output.
///
/// # Panics
/// If it fails or does not end, and if a program that it names is missing.
#[track_caller]
fn shell(script: &str, port: u16) -> Vec<u8> {
    for (program, package) in PROGRAMS.iter().filter(|(program, _)| script.contains(program)) {
        let found = Command::new("sh").args(["-c", "command -v \"$0\"", program]).output().expect("sh");
        assert!(found.status.success(), "{program} is needed (apt-get install {package})");
    }
    let mut command = Command::new("timeout");
    command.args(["60", "sh", "-c", script]).env("PORT", port.to_string());
    let output = command.output().expect("timeout(1)");
    assert!(output.status.success(), "{script}: {:?}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Starts a daemon with a direct listener for `target`.
#[track_caller]
fn direct(target: &str) -> (Daemon, Reserved) {
    let port = Reserved::new().unwrap();
    let config = format!("[direct]\n{}=CONN {target}\n", port.port());
    (daemon().config(&config).listeners(2).start(), port)
}

#[test]
fn setup_mode_works_with_nc() {
    let daemon = started();
    for nc in ["nc", "busybox nc"] {
        let output = shell(&format!("printf 'CAPA\\nSTAT\\nQUIT\\n' | {nc} 127.0.0.1 $PORT"), daemon.port());
        let output = String::from_utf8(output).unwrap();
        let lines: Vec<&str> = output.lines().collect();
        assert!(lines[0].starts_with("OK TOGGLEDBITS-SOCKPROXY 1 "), "{nc}: {output}");
        assert!(lines[1].starts_with("OK CAPA BLKS RTIM NTFY CONN UDP"), "{nc}: {output}");
        assert!(lines[2].starts_with(" ID       St Idle |Uptim") && lines[3].starts_with('*'), "{nc}: {output}");
        assert_eq!(lines[4..], ["OK QUIT"], "{nc}");
    }
}

#[test]
fn stop_works_with_nc_and_socat() {
    for nc in ["nc", "busybox nc", "socat -t 20 - TCP:127.0.0.1:$PORT #"] {
        let mut daemon = started();
        let output = shell(&format!("echo STOP | {nc} 127.0.0.1 $PORT"), daemon.port());
        assert!(output.ends_with(b"\nOK STOP\n"), "{nc}: {}", String::from_utf8_lossy(&output));
        assert_eq!(daemon.wait_exit(LIMIT).expect("the daemon exits").code(), Some(0), "{nc}");
    }
}

#[test]
fn a_file_passes_to_a_device_and_back() {
    let scratch = Scratch::new();
    let data = Random::new(1).bytes(3_000_000);
    let file = scratch.write("data", &data);
    let daemon = started();
    let device = Device::start(Kind::Echo);
    let conn = format!("(echo CONN {}; cat {file})", device.addr());
    // nc -N sends FIN at the end of its input; BusyBox's nc always does.
    for nc in ["nc -N", "busybox nc"] {
        let output = shell(&format!("{conn} | {nc} 127.0.0.1 $PORT"), daemon.port());
        let start = output.len() - data.len().min(output.len());
        let head = String::from_utf8_lossy(&output[..start]).into_owned();
        assert!(head.starts_with("OK TOGGLEDBITS") && head.contains("\nOK CONN "), "{nc}: {head}");
        assert!(output[start..] == data, "{nc}: {} bytes came back", output.len());
    }
}

#[test]
fn socat_and_nc_work_through_a_direct_listener() {
    let scratch = Scratch::new();
    let data = Random::new(2).bytes(3_000_000);
    let file = scratch.write("data", &data);
    let device = Device::start(Kind::Echo);
    let (_daemon, port) = direct(&device.addr().to_string());
    for client in ["socat -t 20 - TCP:127.0.0.1:$PORT", "nc -N 127.0.0.1 $PORT", "busybox nc 127.0.0.1 $PORT"] {
        let received = shell(&format!("{client} < {file}"), port.port());
        assert!(received == data, "{client}: {} bytes came back", received.len());
    }
}

#[test]
fn curl_reaches_luup_through_a_direct_listener() {
    let luup = Luup::start();
    let (_daemon, port) = direct(&format!("127.0.0.1:{}", luup.port()));
    let answer = shell("curl -sSf --max-time 20 'http://127.0.0.1:'$PORT'/data_request?id=alive&x=1'", port.port());
    assert!(String::from_utf8(answer).unwrap().contains("JobID"));
    assert_eq!(luup.requests()[0].query, "id=alive&x=1");
}

#[test]
fn curl_uploads_and_downloads_large_bodies() {
    let scratch = Scratch::new();
    let data = Random::new(3).bytes(5_000_000);
    let file = scratch.write("data", &data);
    let device = Device::start(Kind::Manual);
    let (_daemon, port) = direct(&device.addr().to_string());
    let length = data.len();
    let server = std::thread::spawn(move || {
        let mut stream = accepted(&device);
        // Reads until the head and the whole body have arrived.
        let mut request = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        let body = loop {
            let read = stream.read(&mut buffer).unwrap();
            request.extend_from_slice(&buffer[..read]);
            let head = request.windows(4).position(|end| end == b"\r\n\r\n");
            if let Some(end) = head.filter(|end| request.len() >= end + 4 + length) {
                break request.split_off(end + 4);
            }
        };
        stream.write_all(format!("HTTP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n").as_bytes()).unwrap();
        stream.write_all(&body).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    });
    let script = format!("curl -sSf --max-time 50 -H Expect: --data-binary @{file} http://127.0.0.1:$PORT/");
    assert!(shell(&script, port.port()) == data);
    server.join().unwrap();
}
