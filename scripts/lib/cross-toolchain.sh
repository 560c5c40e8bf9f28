# shellcheck shell=bash
# The tools of a cross build, all from packages. Source it after common.sh, then call cross_toolchain.
#
# The parts, and why "rustup target add" is not enough:
# - The MIPS targets are tier 3, without a prebuilt standard library. It is built with the daemon (-Zbuild-std), from the
#   source of the same compiler. This is done for every target, with options for size.
# - Debian's security archive has compiler, cargo and that source as rustc-web, cargo-web and rust-web-src. They conflict
#   with the packages rustc and rustup, so they are unpacked in the cache instead of installed. This needs no root, and
#   leaves the machine's Rust unchanged.
# - If apt does not have them (another release, Ubuntu), the machine's Rust is used with rustup's rust-src.
# - objcopy, nm, readelf and the linker for firmware come from the compiler's LLVM, which supports every target.
# - C compiler, musl and the linker for the profile release are Zig's, with cargo-zigbuild, both from PyPI. Zig 0.17 fails
#   to link mipsel (undefined symbols in its libc); Zig 0.13 does not support mipsel with musl and soft float.
#
# Environment:
#   CROSS_RUST   debian: Debian's packages; rustup: the machine's rustup toolchain with rust-src
#                (default: debian if apt has the packages, otherwise rustup)

CROSS_ZIG=ziglang==0.14.1
CROSS_ZIGBUILD=cargo-zigbuild==0.24.0
# The oldest compiler whose unstable options (see cross-build.sh) are known to work. Cargo.toml's rust-version is lower.
CROSS_MIN_RUST=1.95

# Puts cargo, rustc, llvm-* and cargo-zigbuild of the cross build first in PATH, and permits -Z options.
cross_toolchain() {
    local python
    mkdir -p "$CACHE/cross"
    have gcc || apt_install gcc libc6-dev
    have flock || apt_install util-linux
    with_lock cross cross_rust_prepare
    python=$(with_lock cross venv cross/venv "$CROSS_ZIG" "$CROSS_ZIGBUILD")
    PATH=$CACHE/cross/bin:$python/bin:$PATH
    # build-std needs -Z options; the daemon's code uses no unstable features.
    export PATH RUSTC_BOOTSTRAP=1
    export CARGO="$CACHE/cross/bin/cargo" RUSTC="$CACHE/cross/bin/rustc" RUSTDOC="$CACHE/cross/bin/rustdoc"
    unset RUSTUP_TOOLCHAIN RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER
    # The caches of Zig and zigbuild are in the same folder, so that removing it removes everything.
    export ZIG_GLOBAL_CACHE_DIR="$CACHE/cross/zig" ZIG_LOCAL_CACHE_DIR="$CACHE/cross/zig"
    export CARGO_ZIGBUILD_CACHE_DIR="$CACHE/cross/zigbuild"
}

# LLVM programs that the scripts use.
CROSS_LLVM="llvm-objcopy llvm-nm llvm-readelf"

# Creates $CACHE/cross/bin/{cargo,rustc,rustdoc,ld.lld,llvm-*}, unless they exist and work.
cross_rust_prepare() {
    local kind=${CROSS_RUST:-} made=$CACHE/cross/.rust name complete=yes
    for name in cargo rustc rustdoc ld.lld $CROSS_LLVM; do
        "$CACHE/cross/bin/$name" --version >/dev/null 2>&1 || complete=
    done
    if [ -n "$complete" ] && [ -f "$made" ] && { [ -z "$kind" ] || [ "$kind" = "$(cat "$made")" ]; }; then
        return 0
    fi
    if [ -z "$kind" ]; then
        kind=rustup
        if have apt-get; then
            apt_refresh
            if cross_debian_version >/dev/null; then
                kind=debian
            fi
        fi
    fi
    rm -rf "$CACHE/cross/bin" "$made"
    case $kind in
        debian) cross_rust_debian ;;
        rustup) cross_rust_rustup ;;
        *) die "CROSS_RUST is debian or rustup, not $kind" ;;
    esac
    printf '%s\n' "$kind" >"$made"
    say "compiler: $("$CACHE/cross/bin/rustc" --version)"
}

# Prints the version of the three packages in apt. Fails if one is missing or too old.
cross_debian_version() {
    local package version=
    for package in rustc-web cargo-web rust-web-src; do
        version=$(apt-cache policy "$package" 2>/dev/null | awk '$1 == "Candidate:" { print $2 }')
        case $version in '' | '(none)') return 1 ;; esac
        dpkg --compare-versions "$version" ge "$CROSS_MIN_RUST" || return 1
    done
    printf '%s\n' "$version"
}

# Unpacks Debian's compiler, and those of its dependencies that are not installed on this machine.
cross_rust_debian() {
    local tree=$CACHE/cross/debian version llvm lld packages name
    apt_refresh
    version=$(cross_debian_version) || die "apt has no rustc-web, cargo-web and rust-web-src of $CROSS_MIN_RUST or later"
    llvm=$(apt-cache depends rust-web-llvm | awk '$1 == "Depends:" && $2 ~ /^llvm-[0-9]+$/ { print $2 }' | sort -V | tail -n 1)
    [ -n "$llvm" ] || die "rust-web-llvm does not depend on an llvm package"
    lld=${llvm/llvm/lld}
    say "unpacking Debian's Rust $version below ${CACHE#"$ROOT"/}/cross"
    rm -rf "$tree"
    mkdir -p "$tree/debs"
    # -s only resolves dependencies and changes nothing. It leaves out installed packages, so those that must be in the
    # tree are added.
    packages=$(apt-get install -s --no-install-recommends rustc-web cargo-web rust-web-src "$lld" |
        awk '$1 == "Inst" { print $2 }')
    # shellcheck disable=SC2086 # one word a package
    packages=$(printf '%s\n' rustc-web cargo-web rust-web-src libstd-rust-web-dev "$llvm" "$lld" $packages |
        sort -u)
    # Without apt's sandbox, whose user may not write here and would only cause a warning.
    # shellcheck disable=SC2086
    (cd "$tree/debs" && apt-get download -qq -o APT::Sandbox::User="$(id -un)" $packages >&2) ||
        die "apt-get download failed"
    for name in "$tree"/debs/*.deb; do
        dpkg-deb -x "$name" "$tree"
    done
    rm -rf "$tree/debs"
    mkdir -p "$CACHE/cross/bin"
    for name in cargo rustc rustdoc; do
        cross_wrapper "$tree" "usr/bin/$name" "$name"
    done
    for name in ld.lld $CROSS_LLVM; do
        cross_wrapper "$tree" "usr/lib/$llvm/bin/$name" "$name"
    done
    cross_source_of "$CACHE/cross/bin/rustc" || die "no source of the standard library beside Debian's compiler"
    "$CACHE/cross/bin/llvm-objcopy" --version >/dev/null || die "llvm-objcopy does not run"
}

# cross_wrapper TREE PROGRAM NAME: creates $CACHE/cross/bin/NAME, which runs TREE/PROGRAM with TREE's libraries.
cross_wrapper() {
    local libraries
    libraries=$1/usr/lib/$(gcc -print-multiarch)
    cat >"$CACHE/cross/bin/$3" <<WRAPPER
#!/bin/sh
# Runs Debian's $3 from its unpacked tree.
LD_LIBRARY_PATH="$libraries\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
export LD_LIBRARY_PATH
exec "$1/$2" "\$@"
WRAPPER
    chmod 755 "$CACHE/cross/bin/$3"
}

# Uses the machine's Rust, and has rustup add rust-src and LLVM's tools if they are missing.
cross_rust_rustup() {
    local name sysroot host
    have rustc || die "no Rust: install it with rustup (https://rustup.rs)"
    sysroot=$(rustc --print sysroot)
    host=$(rustc -vV | awk '$1 == "host:" { print $2 }')
    if ! cross_source_of rustc || [ ! -x "$sysroot/lib/rustlib/$host/bin/llvm-objcopy" ]; then
        have rustup || die "$(rustc --version) has no source of the standard library, and there is no rustup to get it"
        rustup component add rust-src llvm-tools >&2 || die "rustup cannot add rust-src and llvm-tools"
        cross_source_of rustc || die "still no source of the standard library"
    fi
    mkdir -p "$CACHE/cross/bin"
    for name in cargo rustc rustdoc; do
        ln -s "$sysroot/bin/$name" "$CACHE/cross/bin/$name"
    done
    ln -s "$sysroot/lib/rustlib/$host/bin/gcc-ld/ld.lld" "$CACHE/cross/bin/ld.lld"
    for name in $CROSS_LLVM; do
        ln -s "$sysroot/lib/rustlib/$host/bin/$name" "$CACHE/cross/bin/$name"
    done
}

# True if compiler $1 has the source of the standard library.
cross_source_of() {
    [ -f "$("$1" --print sysroot)/lib/rustlib/src/rust/library/Cargo.lock" ]
}
