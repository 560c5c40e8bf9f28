# shellcheck shell=bash
# Part "luci": the pages of LuCI under a simulation of LuCI, and in a box the rpcd plugin and the collector.

apt_need lua5.1 node=nodejs

result "luci: the generated files are up to date" "$ROOT/scripts/luci" --check

root=$(box luci ash)
put_program "$daemon" "$root" usr/sbin/sockproxyd
put_program "$(readlink -f "$(command -v lua5.1)")" "$root" usr/bin/lua
install -D "$ROOT/openwrt/rpcd-mod-sockproxyd/files/sockproxyd" "$root/usr/libexec/rpcd/sockproxyd"
install -D -m 644 "$ROOT/openwrt/prometheus-node-exporter-lua-sockproxyd/files/sockproxyd.lua" \
    "$root/usr/lib/lua/prometheus-collectors/sockproxyd.lua"
install -D -m 644 "$PACKAGING/luci/jshn.sh" "$root/usr/share/libubox/jshn.sh"
install -m 644 "$PACKAGING/luci/exporter.lua" "$root/test/exporter.lua"
inside "$root" luci.sh luci

# Prints its own results.
node "$PACKAGING/luci/views.js" "$ROOT/openwrt/luci-app-sockproxyd" "$ROOT/docs/configuration.md" "$root/tmp/status.json" "$daemon" || :
