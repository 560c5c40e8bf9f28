#!/bin/sh
# The packages feed's CI runs this on the installed package: test.sh NAME VERSION
set -eu

[ "$1" = sockproxyd ] || exit 0
sockproxyd --version | grep -F "$2"
sockproxyd -t -c /etc/sockproxyd.cf
