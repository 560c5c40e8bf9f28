#!/bin/sh
# The packages feed's CI runs this on the installed package: test.sh NAME VERSION
set -eu

[ "$1" = sockproxyd ] || exit 0
sockproxyd --version | grep -F "$2"
sockproxyd -t -c /etc/sockproxyd.cf

# Starts it, and asks it for its greeting, its capabilities and its status.
port=25042
sockproxyd -c /etc/sockproxyd.cf -a 127.0.0.1 -p $port &
daemon=$!
trap 'kill $daemon 2>/dev/null || :' EXIT
sockproxyd --probe=10 -a 127.0.0.1 -p $port
sockproxyd --status=json -a 127.0.0.1 -p $port | grep -F '"connections"'
kill $daemon
wait $daemon
if sockproxyd --probe -a 127.0.0.1 -p $port 2>/dev/null; then
	exit 1
fi
echo "sockproxyd starts, answers and ends"
