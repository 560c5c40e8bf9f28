# shellcheck shell=bash
# Part "classic": boxes without procd. One with all that BusyBox has, one of 2010 whose shell and BusyBox are spare.

aa=$(box aa ash)
openwrt "$aa" aa
put_program "$daemon" "$aa" usr/sbin/sockproxyd
install "$ROOT/init.d/sockproxyd" "$aa/etc/init.d/sockproxyd"
inside "$aa" classic.sh aa

spare=$(box spare dash "${SPARE[@]}")
openwrt "$spare" backfire
put_program "$daemon" "$spare" usr/sbin/sockproxyd
install "$ROOT/init.d/sockproxyd" "$spare/etc/init.d/sockproxyd"
cat >"$spare/bin/sleep" <<'SLEEP'
#!/bin/sh
case $1 in *.*) echo "sleep: invalid number" >&2; exit 1 ;; esac
exec /test/busybox sleep "$1"
SLEEP
chmod 755 "$spare/bin/sleep"
inside "$spare" classic.sh spare
