# shellcheck shell=bash
# Makes the boxes of the packaging tests: sandboxes with their own root folder, processes and network. Sourced
# by scripts/test-packaging after common.sh. Reads $work (a scratch folder) and $daemon (the program to install
# in boxes).

PACKAGING=$ROOT/tests/packaging

# result NAME COMMAND...: one check outside of a box; its output is shown only if it fails.
result() {
    local name=$1 output
    shift
    if output=$("$@" 2>&1); then
        printf 'ok    %s\n' "$name"
    else
        printf 'FAIL  %s\n%s\n' "$name" "$output"
    fi
}

# this_machine: prints this machine's name in package names.
this_machine() {
    case $(uname -m) in
        x86_64) echo x86_64 ;;
        aarch64) echo aarch64 ;;
        armv7l) echo armv7 ;;
        *) die "no package for this machine ($(uname -m))" ;;
    esac
}

# put_program FILE BOX [PATH]: copies a program of this machine, with its shared libraries.
put_program() {
    local library
    install -D "$1" "$2/${3:-$1}"
    # ldd fails for a static program, which has none.
    { ldd "$1" 2>/dev/null | grep -o '/[^ )]*' || :; } | while read -r library; do
        [ -e "$2$library" ] || install -D "$library" "$2$library"
    done
}

# box NAME SHELL APPLET...: makes $work/NAME with BusyBox and prints its path. SHELL: ash, or dash for a box
# with a strict POSIX shell that runs only programs in the folders of PATH. APPLET...: the applets of the box;
# default: all that BusyBox has.
box() {
    local root=$work/$1 shell=$2 applet
    shift 2
    rm -rf "$root"
    mkdir -p "$root"/{bin,sbin,usr/bin,usr/sbin,etc/init.d,etc/rc.d,lib,tmp,var/run,var/lock,proc,dev,test}
    chmod 1777 "$root/tmp"
    install /bin/busybox "$root/test/busybox"
    [ $# -gt 0 ] || mapfile -t applets < <(/bin/busybox --list-full)
    [ $# -eq 0 ] || applets=("$@")
    for applet in "${applets[@]}"; do
        [ -e "$root/$applet" ] || ln -s /test/busybox "$root/$applet"
    done
    ln -sf busybox "$root/bin/sh"
    ln -sf /test/busybox "$root/bin/busybox"
    if [ "$shell" = dash ]; then
        have dash || apt_install dash >&2
        rm "$root/bin/sh"
        put_program "$(command -v dash)" "$root" bin/sh
    fi
    echo 'root:x:0:0::/:/bin/sh' >"$root/etc/passwd"
    echo 'root:x:0:' >"$root/etc/group"
    cp "$PACKAGING/check.sh" "$root/test/"
    printf '%s\n' "$root"
}

# The applets of the smallest BusyBox that Luup ever ran on, which the init script may use: without nc,
# start-stop-daemon and usleep; and its sleep takes whole seconds only.
MINIMAL=(bin/awk bin/basename bin/cat bin/chmod bin/cp bin/cut bin/echo bin/grep bin/gunzip bin/head bin/kill bin/ln bin/ls
    bin/mkdir bin/mknod bin/mv bin/pidof bin/printf bin/ps bin/readlink bin/rm bin/sed bin/sort bin/tail bin/tar bin/test
    bin/touch bin/tr bin/true bin/wc)

# openwrt BOX FLAVOUR: adds the files of OpenWrt of that age (see rc.common), with the simulated procd if that
# age has one.
openwrt() {
    local root=$1
    install "$PACKAGING/rc.common" "$root/etc/rc.common"
    echo "$2" >"$root/etc/flavour"
    cp "$PACKAGING/functions.sh" "$root/lib/functions.sh"
    cp "$PACKAGING/functions.sh" "$root/etc/functions.sh"
    # For sockproxyd.host.interface.
    mkdir -p "$root/lib/functions"
    cp "$PACKAGING/network.sh" "$root/lib/functions/network.sh"
    case $2 in
        bb | main)
            mkdir -p "$root/lib/functions" "$root/sbin"
            cp "$PACKAGING/procd.sh" "$root/lib/functions/procd.sh"
            [ "$2" = bb ] || cat "$PACKAGING/procd-today.sh" >>"$root/lib/functions/procd.sh"
            : >"$root/sbin/procd"
            chmod 755 "$root/sbin/procd"
            ;;
    esac
}

# users BOX: gives the box simulations of useradd and userdel. In a box that may not
# have other users (see tests/packaging/enter), the new user has root's numbers.
users() {
    cat >"$1/usr/sbin/useradd" <<'USERADD'
#!/bin/sh
number=250
: >/tmp/probe
chown 250 /tmp/probe 2>/dev/null || number=0
rm -f /tmp/probe
for name; do :; done
echo "$name:x:$number:$number::/nonexistent:/usr/sbin/nologin" >>/etc/passwd
echo "$name:x:$number:" >>/etc/group
USERADD
    cat >"$1/usr/sbin/userdel" <<'USERDEL'
#!/bin/sh
for file in /etc/passwd /etc/group; do
    grep -v "^$1:" $file >$file.new
    mv $file.new $file
done
USERDEL
    chmod 755 "$1"/usr/sbin/user{add,del}
}

# inside BOX SCRIPT [ARGUMENT]...: runs a script of tests/packaging in the box.
inside() {
    local root=$1 name=$2
    shift 2
    install "$PACKAGING/$name" "$root/test/$name"
    # A box that hangs counts as a failure and does not stop the tests.
    timeout -k 5 300 "$PACKAGING/enter" "$root" /test/busybox sh "/test/$name" "$@" </dev/null ||
        echo "FAIL  ${root##*/}: $name ended with status $?"
}
