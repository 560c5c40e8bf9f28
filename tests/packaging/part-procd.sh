# shellcheck shell=bash
# Part "procd": boxes with a simulated procd, of Vera's age and of today.

for flavour in bb main; do
    root=$(box "procd-$flavour" ash)
    openwrt "$root" "$flavour"
    put_program "$daemon" "$root" usr/sbin/sockproxyd
    install "$ROOT/init.d/sockproxyd" "$root/etc/init.d/sockproxyd"
    inside "$root" procd-service.sh "procd-$flavour"
done
