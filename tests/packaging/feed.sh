#!/bin/sh
# Inside a box with the files of the feed's package: an upgrade, as OpenWrt's own maintainer scripts do it. These run
# /test/preinst, start the proxy, and know nothing of a proxy that its owner has disabled.
# usage: feed.sh BOX
box=$1
. /test/check.sh

# default_postinst of OpenWrt's functions.sh, in short.
postinst() {
    [ "${PKG_UPGRADE:-}" = 1 ] || service enable
    service start
}

check "install: preinst" sh /test/preinst install
check "install: postinst" postinst
check "the proxy greets" greets
for manager in opkg apk; do
    service start
    service disable
    service stop
    eventually number 0
    # opkg gives an argument, apk's scripts set a variable.
    case $manager in
        opkg) check "$manager: upgrade of a disabled proxy: preinst" sh /test/preinst upgrade 0.1.0-1 ;;
        apk) check "$manager: upgrade of a disabled proxy: preinst" env PKG_UPGRADE=1 sh /test/preinst ;;
    esac
    export PKG_UPGRADE=1
    check "$manager: postinst" says 'stays disabled' postinst
    check "$manager: no process runs" number 0
    check "$manager: it is still disabled" not service enabled
    unset PKG_UPGRADE
    service enable
    service start
    check "$manager: it can be enabled and started" greets
    check "$manager: upgrade of an enabled proxy: preinst" env PKG_UPGRADE=1 sh /test/preinst
    export PKG_UPGRADE=1
    service stop
    check "$manager: postinst" postinst
    check "$manager: the proxy greets" greets
    unset PKG_UPGRADE
done
service stop
