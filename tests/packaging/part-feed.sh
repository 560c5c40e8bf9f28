# shellcheck shell=bash
# Part "feed": the Makefile in openwrt/sockproxyd, under a simulation of the part of OpenWrt's build system that it uses.
# Prepares the sources, installs a program as if it had been compiled, and checks the result.

have make || apt_install make
top=$work/feed/top
mkdir -p "$top/include" "$top/feeds/packages/lang/rust" "$top/package" "$work/feed/install/bin"
# As docs/install.md says.
ln -s "$ROOT/openwrt/sockproxyd" "$top/package/sockproxyd"
cat >"$top/rules.mk" <<'RULES'
INCLUDE_DIR:=$(TOPDIR)/include
INSTALL_DIR:=install -d -m0755
INSTALL_BIN:=install -m0755
INSTALL_DATA:=install -m0644
INSTALL_CONF:=install -m0600
RULES
cat >"$top/include/package.mk" <<'PACKAGE'
PKG_BUILD_DIR:=$(TOPDIR)/../build
PKG_INSTALL_DIR:=$(TOPDIR)/../install
define BuildPackage
prepare:
	$(call Build/Prepare)
install:
	$(call Package/$(1)/install,$(TOPDIR)/../root)
preinst:
	$(info $(Package/$(1)/preinst))
conffiles:
	$(info $(call Package/$(1)/conffiles))
variables: conffiles
	$(info version=$(PKG_VERSION) release=$(PKG_RELEASE) depends=$(PKG_BUILD_DEPENDS))
	$(info flags=$(PKG_BUILD_FLAGS) source=$(PKG_SOURCE) from=$(PKG_SOURCE_URL) hash=$(PKG_HASH))
	$(info maintainer=$(PKG_MAINTAINER))
	$(info cargo $(CARGO_PKG_VARS))
endef
PACKAGE
cat >"$top/feeds/packages/lang/rust/rust-package.mk" <<'RUST'
RUST_ARCH_DEPENDS:=@mipsel
CARGO_PKG_VARS= CARGO_PROFILE_RELEASE_PANIC=unwind
define RustBinPackage
endef
RUST
install "$daemon" "$work/feed/install/bin/sockproxyd"

feed_make() {
    make -s -r --no-print-directory -C "$top/package/sockproxyd" "TOPDIR=$top" "$@"
}
variables=$(feed_make -n variables)
# shellcheck source=scripts/lib/release.sh
. "$ROOT/scripts/lib/release.sh"
result "feed: its version is the crate's" grep -q "^version=$(release_version) release=[0-9]* depends=rust/host$" <<<"$variables"
result "feed: panic is abort, as in Cargo.toml" grep -q '^cargo .*PANIC=unwind CARGO_PROFILE_RELEASE_PANIC=abort' <<<"$variables"
result "feed: no MIPS16, in which ring's C code is slow" grep -q '^flags=no-mips16 ' <<<"$variables"
result "feed: nothing is downloaded in a checkout" grep -q ' source= from= hash=$' <<<"$variables"
result "feed: a maintainer with an address" grep -q '^maintainer=.* <.*@.*>$' <<<"$variables"
# Copied into another feed, alone.
mkdir -p "$work/feed/alone"
cp "$ROOT/openwrt/sockproxyd/Makefile" "$work/feed/alone/"
alone=$(make -s -r --no-print-directory -C "$work/feed/alone" "TOPDIR=$top" -n variables)
result "feed: elsewhere the source is downloaded" \
    grep -q " source=sockproxyd-$(release_version).tar.gz from=https://[^ ]* hash=[^ ]" <<<"$alone"
result "feed: prepare" feed_make prepare
result "feed: the prepared sources can be built" cargo metadata --quiet --locked --offline --no-deps --format-version 1 \
    --manifest-path "$work/feed/build/Cargo.toml"
result "feed: the prepared sources contain no build output" sh -c "! ls -d '$work/feed/build/target' '$work/feed/build/.git' 2>/dev/null"
result "feed: install" feed_make install
installed=$work/feed/root
expected=$work/feed/expected
{
    printf '644 ./usr/lib/lua/%s\n' "${RELEASE_LUA[@]##*/}"
    cat <<'FILES'
644 ./etc/capabilities/sockproxyd.json
644 ./etc/config/sockproxyd
644 ./etc/sockproxyd.cf
644 ./lib/upgrade/keep.d/sockproxyd
755 ./etc/init.d/sockproxyd
755 ./usr/sbin/sockproxyd
FILES
} | sort >"$expected"
result "feed: the files" diff "$expected" <(cd "$installed" && find . -type f -printf '%m %p\n' | sort)
result "feed: the init script is the tested one" cmp "$installed/etc/init.d/sockproxyd" "$ROOT/init.d/sockproxyd"
for conf in /etc/config/sockproxyd /etc/sockproxyd.cf; do
    result "feed: $conf is a conffile" grep -qx "$conf" <<<"$variables"
done
feed_test() {
    sed "s|/etc/sockproxyd.cf|$installed&|" "$ROOT/openwrt/sockproxyd/test.sh" |
        PATH=$installed/usr/sbin:$PATH sh -s sockproxyd "$1"
}
result "feed: the folder of keys is private" test "$(stat -c %a "$installed/etc/sockproxyd.d")" = 750
result "feed: a firmware upgrade keeps that folder" grep -qx /etc/sockproxyd.d "$installed/lib/upgrade/keep.d/sockproxyd"

# preinst, as opkg and apk call it, in a box with a disabled proxy and an enabled one.
root=$(box feed-box ash)
openwrt "$root" main
cp -a "$installed/." "$root/"
put_program "$daemon" "$root" usr/sbin/sockproxyd
feed_make preinst >"$root/test/preinst"
inside "$root" feed.sh feed-box
result "feed: test.sh accepts this version" feed_test "$(release_version)"
result "feed: test.sh refuses another version" sh -c "! (sed 1d '$ROOT/openwrt/sockproxyd/test.sh' | PATH='$installed/usr/sbin:$PATH' sh -s sockproxyd 98.7.6)"
