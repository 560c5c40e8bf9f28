# shellcheck shell=bash
# Part "procd": boxes with a stand-in for procd, of Vera's time and of today.

for flavour in bb main; do
    root=$(box "procd-$flavour" ash)
    openwrt "$root" "$flavour"
    put_program "$daemon" "$root" usr/sbin/sockproxyd
    install "$ROOT/init.d/sockproxyd" "$root/etc/init.d/sockproxyd"
    inside "$root" procd-service.sh "procd-$flavour"
done
