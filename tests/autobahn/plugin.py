"""A plugin's side of the protocol: setup mode, and messages in MESG framing."""

import socket


class Plugin:
    """A plugin's connection to the proxy at a port of loopback, after `command`."""

    def __init__(self, proxy, command):
        self.socket = socket.create_connection(("127.0.0.1", proxy), timeout=300)
        self.stream = self.socket.makefile("rb")
        self.line()
        self.socket.sendall(f"{command}\n".encode())
        answer = self.line()
        if not answer.startswith("OK "):
            raise SystemExit(f"{command}: {answer}")

    def line(self):
        return self.stream.readline().decode().rstrip("\n")

    def messages(self):
        """All messages as (verb, payload), until the end of the stream."""
        while header := self.line():
            words = header.split(" ")
            payload = self.stream.read(int(words[-1]))
            yield words[0], payload

    def send(self, verb, payload):
        try:
            self.socket.sendall(f"{verb} {len(payload)}\n".encode() + payload)
        except (BrokenPipeError, ConnectionResetError):
            pass  # The suite has ended the case.

    def echo(self):
        """Sends back every message, until the end of the stream."""
        for verb, payload in self.messages():
            if verb in ("TEXT", "BINA"):
                self.send(verb, payload)
        self.close()

    def close(self):
        self.stream.close()
        self.socket.close()
