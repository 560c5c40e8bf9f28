#!/bin/sh
# Inside a box with the files of the image: the entrypoint and the health check, as Docker would run them.
# usage: oci.sh BOX
box=$1
. /test/check.sh

# shellcheck disable=SC2120 # checks pass arguments
entrypoint() {
    # shellcheck disable=SC2046 # one word a line
    exec $(cat /test/entrypoint) "$@"
}
health() {
    # shellcheck disable=SC2046
    (exec $(cat /test/health))
}

check "the health check fails before the start" not health
# shellcheck disable=SC2119
(entrypoint) >/tmp/log 2>&1 &
started=$!
check "the entrypoint starts the proxy" eventually greets
check "the health check succeeds" health
kill $started
wait $started
check "SIGTERM ends it" equal $? 0
printf '[host]\nport=2611\n' >/etc/sockproxyd.cf
# shellcheck disable=SC2119
(entrypoint) >/tmp/log 2>&1 &
started=$!
check "with a configuration, the proxy greets" eventually greets 2611
check "the health check asks at that port" health
check "arguments go to the program" says '^sockproxyd [0-9]' entrypoint --version
kill -STOP $started
check "the health check fails if the proxy hangs" not health
kill -KILL $started
echo wrong >/etc/sockproxyd.cf
check "a configuration that is wrong is named" says 'sockproxyd.cf:1' entrypoint
