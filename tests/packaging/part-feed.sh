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
result "feed: the maintainer is that of the released packages" grep -qxF "maintainer=$RELEASE_MAINTAINER" <<<"$variables"
# Copied into another feed, alone.
mkdir -p "$work/feed/alone"
cp "$ROOT/openwrt/sockproxyd/Makefile" "$work/feed/alone/"
alone=$(make -s -r --no-print-directory -C "$work/feed/alone" "TOPDIR=$top" -n variables)
result "feed: elsewhere the source is downloaded" \
    grep -q " source=sockproxyd-$(release_version).tar.gz from=https://[^ ]* hash=[^ ]" <<<"$alone"
result "feed: Build/Prepare copies the sources" feed_make prepare
result "feed: the prepared sources can be built" cargo metadata --quiet --locked --offline --no-deps --format-version 1 \
    --manifest-path "$work/feed/build/Cargo.toml"
result "feed: the prepared sources contain no build output" sh -c "! ls -d '$work/feed/build/target' '$work/feed/build/.git' 2>/dev/null"
result "feed: the package can be installed" feed_make install
installed=$work/feed/root
expected=$work/feed/expected
{
    cat <<'FILES'
644 ./etc/capabilities/sockproxyd.json
644 ./etc/config/sockproxyd
644 ./etc/sockproxyd.cf
644 ./lib/upgrade/keep.d/sockproxyd
755 ./etc/init.d/sockproxyd
755 ./usr/sbin/sockproxyd
FILES
} | sort >"$expected"
result "feed: the package has these files" diff "$expected" <(cd "$installed" && find . -type f -printf '%m %p\n' | sort)
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

# --- The other packages ---

# luci.mk has the rules of LuCI's applications: it installs htdocs/ and root/.
mkdir -p "$top/feeds/luci"
cat >"$top/feeds/luci/luci.mk" <<'LUCI'
include $(INCLUDE_DIR)/package.mk
define Package/$(PKG_NAME)
DEPENDS:=$(LUCI_DEPENDS)
URL:=$(LUCI_URL)
PKGARCH:=$(LUCI_PKGARCH)
endef
define Package/$(PKG_NAME)/install
	$(INSTALL_DIR) $(1)/www
	cp -R ./htdocs/. $(1)/www/
	cp -R ./root/. $(1)/
endef
$(eval $(call BuildPackage,$(PKG_NAME)))
LUCI
cat >>"$top/include/package.mk" <<'PACKAGE'
define BuildPackage
$(eval $(call Package/$(1)))
prepare:
	$(call Build/Prepare)
install:
	$(call Package/$(1)/install,$(TOPDIR)/../root-$(1))
variables:
	$(info version=$(PKG_VERSION) release=$(PKG_RELEASE) license=$(PKG_LICENSE) arch=$(PKGARCH) depends=$(DEPENDS))
	$(info url=$(URL) maintainer=$(PKG_MAINTAINER) source=$(PKG_SOURCE))
endef
PACKAGE
app=$ROOT/openwrt/luci-app-sockproxyd
ipks=$work/feed/ipk
SOURCE_DATE_EPOCH=1700000000 "$ROOT/scripts/extras" -o "$ipks" >/dev/null
for package in sockproxyd-lua rpcd-mod-sockproxyd prometheus-node-exporter-lua-sockproxyd luci-app-sockproxyd; do
    rm -rf "$work/feed/build"
    ln -s "$ROOT/openwrt/$package" "$top/package/$package"
    make_package() {
        make -s -r --no-print-directory -C "$top/package/$package" "TOPDIR=$top" "$@"
    }
    result "feed: $package is of this version, for every CPU" \
        grep -q "^version=$(release_version) release=[0-9]* license=MIT arch=all depends=" <<<"$(make_package -n variables)"
    result "feed: $package names the page and the maintainer that the daemon's names" test \
        "$(make_package -n variables | grep ^url=)" = "url=$(sed -n 's/^SOCKPROXYD_URL:=//p' "$ROOT/openwrt/sockproxyd/Makefile") maintainer=$(
            sed -n 's/^maintainer=//p' <<<"$variables") source="
    result "feed: $package can be prepared and installed" make_package prepare install
    case $package in
        sockproxyd-lua) printf '644 ./usr/share/lua/%s\n' "${RELEASE_LUA[@]##*/}" ;;
        rpcd-mod-sockproxyd) echo "755 ./usr/libexec/rpcd/sockproxyd" ;;
        prometheus-*) echo "644 ./usr/lib/lua/prometheus-collectors/sockproxyd.lua" ;;
        luci-app-sockproxyd)
            (cd "$app/htdocs" && find . -type f -printf '644 ./www/%P\n')
            (cd "$app/root" && find . -type f -printf '644 ./%P\n')
            ;;
    esac | sort >"$expected"
    result "feed: $package has these files" diff "$expected" <(cd "$work/feed/root-$package" && find . -type f -printf '%m %p\n' | sort)

    # The same package without OpenWrt's build system.
    ipk=$ipks/${package}_$(release_version)-1_all.ipk
    mkdir -p "$ipks/$package"/{data,control}
    tar -xzOf "$ipk" ./data.tar.gz | tar -xz -C "$ipks/$package/data"
    tar -xzOf "$ipk" ./control.tar.gz | tar -xz -C "$ipks/$package/control"
    result "feed: $package: the .ipk has the same files" diff -r "$work/feed/root-$package" "$ipks/$package/data"
    result "feed: $package: the .ipk has the same modes" diff "$expected" <(cd "$ipks/$package/data" && find . -type f -printf '%m %p\n' | sort)
    depends=$(make_package -n variables | sed -n 's/.* depends=//p' | tr -d +)
    result "feed: $package: the .ipk has the same dependencies" grep -qx "Depends: ${depends// /, }" "$ipks/$package/control/control"
    python3 -B "$PACKAGING/adb_reader.py" unpack "$ipks/$package-$(release_version)-r1_noarch.apk" "$ipks/$package/apk"
    # Only apk's packages have lists of their files.
    rm -r "$ipks/$package/apk/data/lib"
    result "feed: $package: the .apk has the same files" diff -r "$work/feed/root-$package" "$ipks/$package/apk/data"
done
result "feed: packages for every CPU: the same input gives the same files" sh -c "
    SOURCE_DATE_EPOCH=1700000000 '$ROOT/scripts/extras' -o '$ipks/again' && cd '$ipks/again' && for file in *; do cmp \"\$file\" \"../\$file\" || exit 1; done"
# The package of the release page has the libraries in /usr/lib/lua, that of the feed has none.
package_files() {
    tar -xzOf "$1" ./data.tar.gz | tar -tz | grep -v '/$' | LC_ALL=C sort
}
mkdir -p "$ipks/daemon"
daemon_ipk=$("$ROOT/scripts/ipk" -o "$ipks/daemon" -b "$daemon" "$(this_machine)")
{ package_files "$daemon_ipk"; (cd "$installed" && find . -type f); } | LC_ALL=C sort >"$ipks/of-daemon"
package_files "$ipks/sockproxyd-lua_$(release_version)-1_all.ipk" >"$ipks/of-lua"
apart() {
    [ -s "$ipks/of-lua" ] && grep -qx ./usr/sbin/sockproxyd "$ipks/of-daemon" && ! grep -xF -f "$ipks/of-lua" "$ipks/of-daemon"
}
result "feed: sockproxyd-lua has no file of the daemon's packages" apart
