"""A plugin that listens: accepts every WebSocket that connects to PORT, and sends back every message.

usage: accept.py PROXY-PORT PORT

Like a plugin it uses MESG framing towards the proxy, which speaks WebSocket with the suite's client.
"""

import sys
import threading

from plugin import Plugin

# The longest message of the suite is 16 MiB.
OPTIONS = "DEFL=on MAXM=33554432"


def main():
    proxy, port = int(sys.argv[1]), int(sys.argv[2])
    owner = Plugin(proxy, f"LSTN {port} PRTO=ws")
    print("listening", flush=True)
    # Without a time limit: nothing may arrive for long.
    owner.socket.settimeout(None)
    while line := owner.line():
        arrival = line.split(" ")[1]
        threading.Thread(target=lambda: Plugin(proxy, f"ACPT {arrival} {OPTIONS}").echo(), daemon=True).start()


main()
