"""Runs Autobahn's cases through sockproxyd: sends back every message.

usage: echo.py PROXY-PORT SERVER-PORT AGENT

Like a plugin it uses MESG framing towards the proxy, which speaks WebSocket with the suite's server. Prints the number of
cases.
"""

import sys

from plugin import Plugin

# The longest message of the suite is 16 MiB.
OPTIONS = "DEFL=on MAXM=33554432 RQTM=60000"


def main():
    proxy, server, agent = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]

    def connect(path):
        return Plugin(proxy, f"CONN ws://127.0.0.1:{server}/{path} {OPTIONS}")

    plugin = connect("getCaseCount")
    count = next(int(payload) for verb, payload in plugin.messages() if verb == "TEXT")
    plugin.close()
    for case in range(1, count + 1):
        connect(f"runCase?case={case}&agent={agent}").echo()
    connect(f"updateReports?agent={agent}").echo()
    print(count)


main()
