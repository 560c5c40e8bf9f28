"""Runs Autobahn's cases through sockproxyd: sends back every message.

usage: echo.py PROXY-PORT SERVER-PORT AGENT

Like a plugin it uses MESG framing towards the proxy, which speaks WebSocket with the suite's server. Prints the number of
cases.
"""

import socket
import sys

# The longest message of the suite is 16 MiB.
OPTIONS = "DEFL=on MAXM=33554432 RQTM=60000"


class Plugin:
    """A plugin's connection."""

    def __init__(self, proxy, url):
        self.socket = socket.create_connection(("127.0.0.1", proxy), timeout=300)
        self.stream = self.socket.makefile("rb")
        self.line()
        self.socket.sendall(f"CONN {url} {OPTIONS}\n".encode())
        answer = self.line()
        if not answer.startswith("OK CONN "):
            raise SystemExit(f"echo: {url}: {answer}")

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

    def close(self):
        self.stream.close()
        self.socket.close()


def main():
    proxy, server, agent = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    base = f"ws://127.0.0.1:{server}"
    plugin = Plugin(proxy, f"{base}/getCaseCount")
    count = next(int(payload) for verb, payload in plugin.messages() if verb == "TEXT")
    plugin.close()
    for case in range(1, count + 1):
        plugin = Plugin(proxy, f"{base}/runCase?case={case}&agent={agent}")
        for verb, payload in plugin.messages():
            if verb in ("TEXT", "BINA"):
                plugin.send(verb, payload)
        plugin.close()
    plugin = Plugin(proxy, f"{base}/updateReports?agent={agent}")
    for _ in plugin.messages():
        pass
    plugin.close()
    print(count)


main()
