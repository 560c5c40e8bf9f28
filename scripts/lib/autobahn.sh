# shellcheck shell=bash
# Installs the Autobahn WebSocket test suite for scripts/autobahn. Source it after lib/common.sh.
#
# The suite needs Python 2.7, last packaged in Debian 11. Its packages are downloaded from the mirror that this
# machine's apt uses, by an apt with its own lists and status, and unpacked without installing, so the machine stays
# unchanged. The suite and its dependencies come from the Python package index.

# The last releases for Python 2.7 of the suite and its dependencies.
AUTOBAHN_PINS=(
    autobahntestsuite==0.8.2 autobahn==0.10.9 Twisted==20.3.0 txaio==2.1.0 Automat==22.10.0 constantly==15.1.0
    hyperlink==21.0.0 incremental==22.10.0 idna==2.10 typing==3.10.0.0 PyHamcrest==1.9.0 attrs==21.4.0 six==1.17.0
    zope.interface==5.4.0 klein==20.6.0 Tubes==0.2.1 Werkzeug==1.0.1 Jinja2==2.11.3 MarkupSafe==1.1.1
    pyOpenSSL==21.0.0 cryptography==3.3.2 cffi==1.15.1 pycparser==2.21 enum34==1.1.10 ipaddress==1.0.23
    service-identity==21.1.0 pyasn1==0.5.1 pyasn1-modules==0.3.0 unittest2==1.1.0 argparse==1.4.0
    traceback2==1.4.0 linecache2==1.0.0
)
AUTOBAHN_PACKAGES=(
    python2.7 python2.7-minimal libpython2.7-minimal libpython2.7-stdlib libssl1.1 libffi7 libexpat1 libsqlite3-0
    python-pip-whl
)

# autobahn_python DIR: unpacks Python 2.7 into DIR/python.
autobahn_python() {
    local dir=$1 apt=$1/apt mirror options found='' package
    rm -rf "$apt" "$dir/python"
    mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/parts" "$apt/python"
    : >"$apt/status"
    options=(
        -o "Dir::Etc::sourcelist=$apt/sources.list" -o "Dir::Etc::sourceparts=$apt/parts"
        -o Dir::Etc::preferences=/dev/null -o "Dir::Etc::preferencesparts=$apt/parts"
        -o "Dir::State::lists=$apt/lists" -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt"
        -o APT::Sandbox::User= -o Acquire::Languages=none -o Acquire::Retries=3 -o APT::Update::Error-Mode=any
    )
    # Debian's main archive first, then its others (security, updates).
    # shellcheck disable=SC2016 # apt expands it
    for mirror in $(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | sort -u |
        awk '{ print ($0 ~ /\/debian\/?$/) ? 0 : 1, $0 }' | sort -s -n | cut -d' ' -f2-); do
        # The keyring has the keys of all releases. The downloaded programs run only here, on loopback.
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bullseye main" >"$apt/sources.list"
        if apt-get -qq "${options[@]}" update >"$apt/log" 2>&1 &&
            apt-cache "${options[@]}" show python2.7 >/dev/null 2>&1; then
            found=yes
            break
        fi
    done
    [ -n "$found" ] || die "no mirror of this machine's apt has Debian 11 with python2.7: $(tail -n 1 "$apt/log")"
    (cd "$apt/archives" && apt-get -qq "${options[@]}" download "${AUTOBAHN_PACKAGES[@]}")
    for package in "$apt"/archives/*.deb; do
        dpkg-deb -x "$package" "$apt/python"
    done
    # Moved last, so that an interrupted run leaves no incomplete folder.
    mv "$apt/python" "$dir/python"
    rm -rf "$apt"
}

# autobahn_run DIR ARGUMENT...: replaces this shell by Python 2.7 of DIR with the suite in its path; call it in a
# subshell. AUTOBAHN_SITE is the folder of its packages: namespace packages (zope) must also be registered with the
# module site.
autobahn_run() {
    local dir=$1 libraries wheels
    shift
    libraries=$(printf '%s:' "$dir"/python/usr/lib/*-linux-gnu*)
    wheels=$(printf '%s:' "$dir"/python/usr/share/python-wheels/*.whl)
    exec env -u PYTHONHOME PYTHONNOUSERSITE=1 AUTOBAHN_SITE="$dir/site" PYTHONPATH="$dir/site:$wheels" LD_LIBRARY_PATH="$libraries" \
        "$dir/python/usr/bin/python2.7" -u -W ignore "$@"
}

# autobahn_install: creates $CACHE/autobahn, unless it is up to date, and prints its path.
autobahn_install() {
    local dir=$CACHE/autobahn stamp
    stamp="$dir ${AUTOBAHN_PINS[*]} ${AUTOBAHN_PACKAGES[*]}"
    mkdir -p "$dir"
    if [ "$(cat "$dir/.made-from" 2>/dev/null)" != "$stamp" ]; then
        rm -rf "$dir/python"
    fi
    if ! [ -x "$dir/python/usr/bin/python2.7" ]; then
        say "installing Python 2.7"
        autobahn_python "$dir" >&2
    fi
    if [ "$(cat "$dir/.made-from" 2>/dev/null)" != "$stamp" ]; then
        say "installing the Autobahn test suite"
        rm -rf "$dir/site"
        local pip=(-m pip --disable-pip-version-check -q install --no-warn-script-location --no-deps
            --no-build-isolation --no-compile --target "$dir/site")
        (autobahn_run "$dir" "${pip[@]}" setuptools==44.1.1 wheel==0.37.1 2>/dev/null >&2)
        (autobahn_run "$dir" "${pip[@]}" "${AUTOBAHN_PINS[@]}" >&2)
        printf '%s' "$stamp" >"$dir/.made-from"
    fi
    printf '%s\n' "$dir"
}
