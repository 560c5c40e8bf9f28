# shellcheck shell=bash
# Part "classic": boxes without procd. One has all of BusyBox; one, of 2010, has a minimal shell and BusyBox.

aa=$(box aa ash)
openwrt "$aa" aa
put_program "$daemon" "$aa" usr/sbin/sockproxyd
install "$ROOT/init.d/sockproxyd" "$aa/etc/init.d/sockproxyd"
inside "$aa" classic.sh aa

minimal=$(box minimal dash "${MINIMAL[@]}")
openwrt "$minimal" backfire
put_program "$daemon" "$minimal" usr/sbin/sockproxyd
install "$ROOT/init.d/sockproxyd" "$minimal/etc/init.d/sockproxyd"
cat >"$minimal/bin/sleep" <<'SLEEP'
#!/bin/sh
case $1 in *.*) echo "sleep: invalid number" >&2; exit 1 ;; esac
exec /test/busybox sleep "$1"
SLEEP
chmod 755 "$minimal/bin/sleep"
inside "$minimal" classic.sh minimal
