#!/usr/bin/env python3
"""Smoke test of a built daemon.

usage: scripts/lib/smoke.py COMMAND...     for example: qemu-mipsel-static target/.../sockproxyd

Checks that its version is that of Cargo.toml, that it greets, that CONN connects to a device by name and bytes pass in both
directions, that the device's bytes cause a notification to Luup, and that it exits with status 0 on SIGTERM. The kernel
chooses ports on 127.0.0.1. Exit status: 0, or 1 with a message.
"""
import http.server
import pathlib
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.parse

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
# Timeout of each step, enough for an emulator on a loaded machine.
SECONDS = 30
GREETING = re.compile(rb"OK TOGGLEDBITS-SOCKPROXY 1 ([0-9a-f]{1,8})\n")


class CheckFailed(Exception):
    """A failed check."""


def expect(what, got, wanted):
    if got != wanted:
        raise CheckFailed(f"{what}: {got!r} instead of {wanted!r}")


def version():
    text = (ROOT / "Cargo.toml").read_text(encoding="utf-8")
    return re.search(r'(?ms)^\[package\].*?^version = "([^"]+)"', text).group(1)


def changed(data):
    return bytes(byte ^ 0x55 for byte in data)


def device():
    """A listening socket that sends its only client's bytes back, each byte changed."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        client, _ = listener.accept()
        with client:
            while data := client.recv(4096):
                client.sendall(changed(data))

    threading.Thread(target=serve, daemon=True).start()
    return listener


def luup(requests):
    """A web server that answers every request as an action, and puts the queries into a queue."""

    class Luup(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.put(urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{ "u:ActionResponse": {} }')

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Luup)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def listening(log):
    """The port in the daemon's log. A thread reads the log to its end, so that the daemon never blocks."""
    found = queue.Queue()

    def read():
        for line in log:
            if match := re.search(r"listening on 127\.0\.0\.1:(\d+)", line):
                found.put(int(match.group(1)))
        found.put(None)

    threading.Thread(target=read, daemon=True).start()
    port = found.get(timeout=SECONDS)
    if port is None:
        raise CheckFailed("the daemon ended before it listened")
    return port


def exchange(port, target, requests):
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as plugin, plugin.makefile("rb") as replies:
        greeting = replies.readline()
        match = GREETING.fullmatch(greeting)
        if not match:
            raise CheckFailed(f"the greeting is {greeting!r}")
        plugin.sendall(b"CONN localhost:%d NTFY=7/urn:example-com:serviceId:Smoke1/HandleReceive\n" % target)
        expect("the answer to CONN", replies.readline(), b"OK CONN " + match.group(1) + b"\n")
        data = bytes(range(1, 251)) * 40
        plugin.sendall(data)
        received = replies.read(len(data))
        expect("the device's answer", received, changed(data))
        request = requests.get(timeout=SECONDS)
        wanted = {"DeviceNum": "7", "serviceId": "urn:example-com:serviceId:Smoke1", "action": "HandleReceive"}
        wanted["Pid"] = match.group(1).decode()
        expect("the notification", {name: request.get(name, [""])[0] for name in wanted}, wanted)


def main():
    command = sys.argv[1:]
    if not command or command[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if command else 2
    result = subprocess.run([*command, "--version"], stdout=subprocess.PIPE, timeout=SECONDS, check=True)
    expect("the version", result.stdout.decode(), f"sockproxyd {version()}\n")
    requests = queue.Queue()
    with device() as target, luup(requests) as server:
        arguments = ["-a", "127.0.0.1", "-p", "0", "-N", f"http://127.0.0.1:{server.server_port}"]
        with subprocess.Popen([*command, *arguments], stderr=subprocess.PIPE, text=True) as daemon:
            try:
                exchange(listening(daemon.stderr), target.getsockname()[1], requests)
                daemon.send_signal(signal.SIGTERM)
                expect("the status after SIGTERM", daemon.wait(SECONDS), 0)
            finally:
                daemon.kill()
        server.shutdown()
    print(f"{command[-1]}: works")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (CheckFailed, OSError, subprocess.SubprocessError) as error:
        sys.exit(f"{sys.argv[-1]}: {error}")
    except queue.Empty:
        sys.exit(f"{sys.argv[-1]}: no answer within {SECONDS} s")
