#!/bin/sh
# Inside a box with opkg or apk: installs what came from a feed, /test/fetched.ipk (or .apk), and asks the proxy.
# usage: from-feed.sh BOX opkg|apk
box=$1
. /test/check.sh
case $2 in
    opkg) check "install" opkg install /test/fetched.ipk ;;
    apk) check "install" apk add --allow-untrusted /test/fetched.apk ;;
esac
check "the proxy greets" eventually greets
