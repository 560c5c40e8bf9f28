# shellcheck shell=bash
# Building and finishing the binary of a target. Source it after cross-toolchain.sh.

# shellcheck source=scripts/lib/targets.sh
. "$ROOT/scripts/lib/targets.sh"

# Prints the folder of target $1's binaries of profile $2.
cross_output() {
    printf '%s\n' "${CARGO_TARGET_DIR:-$ROOT/target}/$1/$2"
}

# Exports the flags of rustc and the C compiler for target $1, profile $2.
cross_flags() {
    local -a rust=(
        # Static, without gcc's runtime library and rustc's crt1.o: musl comes from Zig.
        -Ctarget-feature=+crt-static
        -Clink-self-contained=no
        # At a fixed address: old kernels may not load static PIE, and MIPS code is a tenth smaller.
        -Crelocation-model=static
        # With panic=abort nothing unwinds; the unwind tables would be 8 % of the binary.
        -Cforce-unwind-tables=no
        # Readable generic names for scripts/size; the released binary has no symbols.
        -Csymbol-mangling-version=v0
    )
    case $2 in
        # Panic locations are useless without panic messages.
        firmware) rust+=(-Zlocation-detail=none) ;;
    esac
    case $2-$1 in
        firmware-mips*)
            rust+=(
                # Code generation for fewer registers: fewer of them are saved in memory.
                -Cllvm-args=-pre-RA-sched=list-burr
                # Delay slots of branches are filled with what the branch leads to.
                -Cllvm-args=-disable-mips-df-succbb-search=false
                # A function that ends in a call jumps.
                -Cllvm-args=-mips-tail-calls
                # Basic blocks in the order that needs the fewest jumps.
                -Cllvm-args=-enable-ext-tsp-block-placement
                -Cllvm-args=-apply-ext-tsp-for-size
                # A jump needs a table, whose entries have four bytes, only for many cases.
                -Cllvm-args=-min-jump-table-entries=10
            )
            ;;
    esac
    # cc-rs would make position-independent code of ring's C.
    local c="-fno-pic -fno-unwind-tables -fno-asynchronous-unwind-tables -ffile-prefix-map=$ROOT=. -ffile-prefix-map=${CARGO_HOME:-$HOME/.cargo}=cargo"
    local IFS=$'\x1f'
    export CARGO_ENCODED_RUSTFLAGS="${rust[*]}"
    unset RUSTFLAGS
    export "CFLAGS_${1//-/_}=$c"
    # rust-ini's hash map draws its keys at compile time: a fixed seed makes builds reproducible.
    # Attackers do not choose the keys of a configuration file, so this is safe.
    export CONST_RANDOM_SEED=sockproxyd
    case $2 in
        firmware)
            local name=${1//-/_}
            export "CARGO_TARGET_${name^^}_LINKER=$ROOT/scripts/lib/firmware-cc" "CROSS_CC_VARIABLE=CC_$name"
            ;;
    esac
}

# Sets cross_args: cargo's options for profile $1, except the target.
cross_args=()
cross_cargo_args() {
    cross_args=(
        --locked
        "-Zbuild-std=std,panic_abort"
        # No path of this machine in the binary.
        -Ztrim-paths --config "profile.$1.trim-paths='all'"
        # cross_finish strips, and keeps the symbols beside the binary.
        --config "profile.$1.strip='none'"
    )
    case $1 in
        firmware)
            cross_args+=(
                # std optimised for size and without backtraces, which are a third of a megabyte.
                -Zbuild-std-features=optimize_for_size
                # A panic aborts at once without a message, which is useless without location and backtrace. The
                # daemon's own log is unaffected. Saves a tenth.
                -Zpanic-immediate-abort --config "profile.$1.panic='immediate-abort'"
                # Debug writes names and no fields, and nothing in crates without names that users read: ureq-proto writes the
                # version of HTTP into requests by it, and errors about TLS and certificates have names by it.
                -Zprofile-rustflags
                --config "profile.$1.rustflags=['-Zfmt-debug=shallow']"
                --config "profile.$1.package.'*'.rustflags=['-Zfmt-debug=none']"
            )
            local crate
            for crate in ureq-proto rustls rustls-pki-types rustls-webpki; do
                cross_args+=(--config "profile.$1.package.$crate.rustflags=['-Zfmt-debug=shallow']")
            done
            ;;
    esac
}

# Prints the command that runs a program of target $1 here: qemu's user mode, or nothing for this machine's CPU.
cross_runner() {
    local arch=${1%%-*}
    if [ "$arch" = armv7 ]; then
        arch=arm
    fi
    if [ "$arch" != "$(uname -m)" ]; then
        apt_need "qemu-$arch-static=qemu-user-static"
        printf 'qemu-%s-static\n' "$arch"
    fi
}

# Runs the smoke test with binary $2 of target $1.
cross_check() {
    local -a runner
    read -ra runner < <(cross_runner "$1") || true
    "$ROOT/scripts/lib/smoke.py" "${runner[@]}" "$2" >&2 || die "$2 does not work"
}

# Runs the library's unit tests, built for target $1, under qemu's user mode. Further arguments go to the test program.
# This finds code that depends on little endian, 64 bits or a PC's alignment.
# Known fault of QEMU 7.2: SO_ERROR has the host's errno, so on MIPS tests of refused connections fail ("Unknown errno"
# for "connection refused").
cross_test() {
    local target=$1 runner
    shift
    runner=$(cross_runner "$target")
    # Tests catch panics, so panics unwind here.
    local -a rust=(-Ctarget-feature=+crt-static -Clink-self-contained=no -Crelocation-model=static)
    local IFS=$'\x1f'
    # Emulated code is slow: some optimisation, and fewer cases of proptest than natively.
    CARGO_ENCODED_RUSTFLAGS="${rust[*]}" CONST_RANDOM_SEED=sockproxyd PROPTEST_CASES=${PROPTEST_CASES:-16} \
        nice cargo-zigbuild test --locked "-Zbuild-std=std,panic_unwind,test" \
        --config "profile.test.debug='line-tables-only'" --config profile.test.opt-level=1 ${runner:+--config "target.$target.runner='$runner'"} \
        --package sockproxyd --lib --target "$target" -- "$@" || {
        case $target in
            mips*) say "QEMU 7.2 reports 'Unknown errno' for 'connection refused' on MIPS; see scripts/lib/cross-build.sh" ;;
        esac
        return 1
    }
}

# Strips binary $1 of target $2, keeps the unstripped one as $1.symbols, and checks the result.
cross_finish() {
    local binary=$1 target=$2 facts
    # If cargo did not rebuild, both names are hard links to the same file, which mv refuses to rename.
    rm -f "$binary.symbols"
    mv "$binary" "$binary.symbols"
    # strip keeps MIPS' .pdr section, which only debuggers read: a tenth of the file.
    llvm-objcopy --strip-all -R .comment -R .pdr -R '.mdebug*' "$binary.symbols" "$binary"
    facts=$(llvm-readelf -hlA "$binary")
    case $facts in
        *INTERP* | *DYNAMIC*) die "$binary is not static" ;;
    esac
    case $facts in
        *'Type:'*'EXEC (Executable file)'*) ;;
        *) die "$binary is position independent" ;;
    esac
    case $target in
        mips*)
            case $facts in
                *'FP ABI: Soft float'*) ;;
                *) die "$binary needs a floating-point unit" ;;
            esac
            ;;
    esac
    if grep -aqF -e "$ROOT" -e "${HOME%/}/" "$binary"; then
        die "$binary contains a path of this machine: strings $binary | grep -F -e '$ROOT' -e '${HOME%/}/'"
    fi
}
