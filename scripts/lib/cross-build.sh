# shellcheck shell=bash
# How a target is built and finished. Source it behind cross-toolchain.sh.

# shellcheck source=scripts/lib/targets.sh
. "$ROOT/scripts/lib/targets.sh"

# Where cargo puts target $1's binaries of profile $2.
cross_output() {
    printf '%s\n' "${CARGO_TARGET_DIR:-$ROOT/target}/$1/$2"
}

# Exports what rustc and the C compiler are to do for target $1, profile $2.
cross_flags() {
    local -a rust=(
        # Static, and neither with gcc's run-time library nor rustc's own crt1.o: musl comes from Zig.
        -Ctarget-feature=+crt-static
        -Clink-self-contained=no
        # At a fixed address: the kernels of old boxes are happier, and MIPS code is a tenth smaller.
        -Crelocation-model=static
        # Nothing unwinds (panic=abort), so the tables for it are dead weight, 8 % of it.
        -Cforce-unwind-tables=no
        # Readable generic names in what scripts/size reads; the symbols are not in the binary we ship.
        -Csymbol-mangling-version=v0
    )
    case $2 in
        # The place of a panic is of no use where its text is dropped.
        firmware) rust+=(-Zlocation-detail=none) ;;
    esac
    local c="-fno-unwind-tables -fno-asynchronous-unwind-tables -ffile-prefix-map=$ROOT=. -ffile-prefix-map=${CARGO_HOME:-$HOME/.cargo}=cargo"
    local IFS=$'\x1f'
    export CARGO_ENCODED_RUSTFLAGS="${rust[*]}"
    unset RUSTFLAGS
    export "CFLAGS_${1//-/_}=$c"
    # rust-ini's hash map draws its keys while it is being compiled: a fixed seed makes equal binaries.
    # Nobody outside chooses the keys of a configuration file, so nothing is lost.
    export CONST_RANDOM_SEED=sockproxyd
}

# Sets cross_args: what cargo is told for profile $1, beside the target.
cross_args=()
cross_cargo_args() {
    cross_args=(
        --locked
        "-Zbuild-std=std,panic_abort"
        # No path of this machine in the binary.
        -Ztrim-paths --config "profile.$1.trim-paths='all'"
        # We strip ourselves, to keep the symbols beside the binary.
        --config "profile.$1.strip='none'"
    )
    case $1 in
        firmware)
            cross_args+=(
                # Without its backtraces (a third of a megabyte), and small where it has the choice.
                -Zbuild-std-features=optimize_for_size
                # A panic ends the daemon at once, without its text (which says nothing without place and
                # backtrace); what we log ourselves is untouched. Takes a tenth off.
                -Zpanic-immediate-abort --config "profile.$1.panic='immediate-abort'"
            )
            ;;
    esac
}

# Prints the words that run a program of target $1 here: qemu's user mode, or nothing where the CPU is this machine's.
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

# Runs binary $2 of target $1 through the least that it must be able to do.
cross_check() {
    local -a runner
    read -ra runner < <(cross_runner "$1") || true
    "$ROOT/scripts/lib/smoke.py" "${runner[@]}" "$2" >&2 || die "$2 does not work"
}

# Runs the library's unit tests, built for target $1, under qemu's user mode; the rest goes to the test program.
# This is what finds code that counts on little endian, 64 bits or the alignment of a PC.
# Known: QEMU 7.2 hands a MIPS program the errno in SO_ERROR in the machine's own numbers, so tests that are refused
# a connection fail there ("Unknown errno" for "connection refused"). That is the emulator's fault.
cross_test() {
    local target=$1 runner
    shift
    runner=$(cross_runner "$target")
    # Tests catch panics, so these unwind, with a standard library that can.
    local -a rust=(-Ctarget-feature=+crt-static -Clink-self-contained=no -Crelocation-model=static)
    local IFS=$'\x1f'
    # Emulated code is slow: a little optimisation, and fewer of proptest's cases than on the machine itself.
    CARGO_ENCODED_RUSTFLAGS="${rust[*]}" CONST_RANDOM_SEED=sockproxyd PROPTEST_CASES=${PROPTEST_CASES:-16} \
        nice cargo-zigbuild test --locked "-Zbuild-std=std,panic_unwind,test" \
        --config "profile.test.debug='line-tables-only'" --config profile.test.opt-level=1 ${runner:+--config "target.$target.runner='$runner'"} \
        --package sockproxyd --lib --target "$target" -- "$@" || {
        case $target in
            mips*) say "with QEMU 7.2 'connection refused' comes out as 'Unknown errno' on MIPS; see scripts/lib/cross-build.sh" ;;
        esac
        return 1
    }
}

# Strips binary $1 of target $2, keeps what it was as $1.symbols, and checks that it is what we promise.
cross_finish() {
    local binary=$1 target=$2 facts
    # Without a rebuild cargo links the binary anew to what the symbols were kept of, and mv refuses the same file.
    rm -f "$binary.symbols"
    mv "$binary" "$binary.symbols"
    # strip leaves MIPS' .pdr, which only a debugger reads: a tenth of the file.
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
                *) die "$binary wants a floating-point unit" ;;
            esac
            ;;
    esac
    if grep -aqF -e "$ROOT" -e "${HOME%/}/" "$binary"; then
        die "$binary has a path of this machine in it: strings $binary | grep -F -e '$ROOT' -e '${HOME%/}/'"
    fi
}
