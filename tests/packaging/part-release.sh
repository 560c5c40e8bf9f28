# shellcheck shell=bash
# Part "release": what scripts/release adds to the packages. Feeds, from which packages are installed by name over HTTP;
# signatures; the bill of materials; the text of the release page. With APK_STATIC (the path of a real apk, version 3) it
# installs from the feed, too.

# shellcheck source=scripts/lib/release.sh
. "$ROOT/scripts/lib/release.sh"
here=$(this_machine)
arch=$(target_openwrt "$(target_name "$here")")
arch=${arch%% *}
version=$(release_version)

made=$work/release
mkdir -p "$made"/{dist,all,n/control,n/data/etc}
export SOCKPROXYD_KEYS=$made/keys
python=$(release_python)
"$ROOT/scripts/sign" --new "$SOCKPROXYD_KEYS"
"$ROOT/scripts/sign" --new "$made/other-keys"
result "release: secret keys are for their owner only" test "$(stat -c %a "$SOCKPROXYD_KEYS"/*.sec* | sort -u)" = 600
result "release: keys are never replaced" sh -c "! '$ROOT/scripts/sign' --new '$SOCKPROXYD_KEYS'"

# Packages for this machine and for another CPU, and one for all.
{
    SOURCE_DATE_EPOCH=1700000000 "$ROOT/scripts/ipk" -o "$made/dist" -b "$daemon" "$here"
    SOURCE_DATE_EPOCH=1700000000 "$ROOT/scripts/ipk" -o "$made/dist" -b "$daemon" mipsel
    SOURCE_DATE_EPOCH=1700000000 "$ROOT/scripts/apk" -o "$made/dist" -b "$daemon" "$here"
    SOURCE_DATE_EPOCH=1700000000 "$ROOT/scripts/apk" -o "$made/dist" -b "$daemon" mipsel
} >/dev/null
cat >"$made/n/control/.PKGINFO" <<'PKGINFO'
pkgname = sockproxyd-example
pkgver = 1.2-r1
pkgdesc = For every CPU
arch = noarch
license = MIT
depend = sockproxyd>=0.1.0 !other
depend = lua~5.1
PKGINFO
echo one >"$made/n/data/etc/example"
"$python" "$ROOT/scripts/lib/apk_pack.py" "$made/n/control" "$made/n/data" 1700000000 \
    "$made/dist/sockproxyd-example-1.2-r1_noarch.apk" "$SOCKPROXYD_KEYS"
mkdir -p "$made/all"/{control,outer}
printf '%s\n' 'Package: sockproxyd-example' 'Version: 1.2-1' 'Architecture: all' 'Depends: sockproxyd' \
    'Description: For every CPU' ' and more' >"$made/all/control/control"
tar --format=gnu -C "$made/all/control" -czf "$made/all/outer/control.tar.gz" ./control
tar --format=gnu -C "$made/n/data" -czf "$made/all/outer/data.tar.gz" .
echo 2.0 >"$made/all/outer/debian-binary"
tar --format=gnu -C "$made/all/outer" -czf "$made/dist/sockproxyd-example_1.2-1_all.ipk" ./debian-binary ./data.tar.gz ./control.tar.gz

feeds=$made/feeds
"$ROOT/scripts/feeds" -o "$feeds" "$made"/dist/*.[ia]pk >"$made/list"
result "release: the same packages give the same feeds" sh -c "
    '$ROOT/scripts/feeds' -o '$made/again' '$made'/dist/*.[ia]pk >/dev/null && diff -r '$feeds' '$made/again'"
result "release: the folders of the feeds" diff <(cd "$feeds" && find . -mindepth 2 -maxdepth 2 -type d | LC_ALL=C sort) - <<FOLDERS
./apk/mipsel_24kc
./apk/mipsel_24kc_24kf
./apk/mipsel_74kc
./apk/$arch
./opkg/mipsel
./opkg/$here
FOLDERS
result "release: the files of a folder for apk" diff <(ls "$feeds/apk/$arch") - <<FILES
packages.adb
sockproxyd-$version-r1.apk
sockproxyd-example-1.2-r1.apk
FILES
# refused PATTERN COMMAND...: passes if the command fails and its output matches.
refused() {
    local pattern=$1 said
    shift
    if said=$("$@" 2>&1); then
        echo "accepted: $said"
        return 1
    fi
    grep -qE -- "$pattern" <<<"$said" || { echo "said: $said"; return 1; }
}
# bad_key NAME PATTERN COMMAND...: passes if the command, with the keys in $made/bad, fails with a message of one line, and
# status 1.
bad_key() {
    local name=$1 pattern=$2 said status=0
    shift 2
    said=$(SOCKPROXYD_KEYS=$made/bad "$@" 2>&1) || status=$?
    result "release: $name" test "$status/$(grep -c . <<<"$said")/$(grep -cE -- "$pattern" <<<"$said")" = 1/1/1
}
good_keys() {
    rm -rf "$made/bad"
    cp -r "$SOCKPROXYD_KEYS" "$made/bad"
}
sign_one() {
    "$ROOT/scripts/sign" "$made/list"
}
sign_feeds() {
    "$ROOT/scripts/feeds" -o "$made/none" "$made"/dist/*.[ia]pk
}
# Another kind of key, and one with a passphrase.
"$python" - "$made" <<'KEYS'
import pathlib, sys
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
made = pathlib.Path(sys.argv[1])
pem = form.Encoding.PEM, form.PrivateFormat.PKCS8
(made / "ed25519.pem").write_bytes(ed25519.Ed25519PrivateKey.generate().private_bytes(*pem, form.NoEncryption()))
(made / "p384.pem").write_bytes(ec.generate_private_key(ec.SECP384R1()).private_bytes(*pem, form.NoEncryption()))
(made / "locked.pem").write_bytes(ec.generate_private_key(ec.SECP256R1()).private_bytes(*pem, form.BestAvailableEncryption(b"x")))
KEYS
for tool in sign_one sign_feeds; do
    good_keys
    rm "$made/bad/usign.sec"
    bad_key "$tool: a missing key for usign" 'no .*/usign.sec' $tool
    : >"$made/bad/usign.sec"
    bad_key "$tool: an empty key for usign" 'usign.sec: not a secret key for usign, or damaged' $tool
    cp "$made/bad/usign.pub" "$made/bad/usign.sec"
    bad_key "$tool: the public key in place of the one for usign" 'usign.sec: not a secret key for usign' $tool
    cp "$made/bad/apk.sec.pem" "$made/bad/usign.sec"
    bad_key "$tool: the key for apk in place of the one for usign" 'usign.sec: not a secret key for usign' $tool
    head -c 60 "$SOCKPROXYD_KEYS/usign.sec" >"$made/bad/usign.sec"
    bad_key "$tool: a cut key for usign" 'usign.sec: not a secret key for usign, or damaged' $tool
    head -c 300 /dev/zero | tr '\0' '\377' >"$made/bad/usign.sec"
    bad_key "$tool: a key for usign that is no text" 'usign.sec: not a secret key for usign' $tool
    # A letter of the secret is another one.
    "$python" -c 'import base64, pathlib, sys
path = pathlib.Path(sys.argv[1])
comment, content = path.read_text().splitlines()
content = bytearray(base64.b64decode(content))
content[int(sys.argv[3])] ^= 1
pathlib.Path(sys.argv[2]).write_text(f"{comment}\n{base64.b64encode(content).decode()}\n")' \
        "$SOCKPROXYD_KEYS/usign.sec" "$made/bad/usign.sec" 60
    bad_key "$tool: a damaged key for usign" 'usign.sec: damaged' $tool
    "$python" -c 'import base64, pathlib, sys
path = pathlib.Path(sys.argv[1])
comment, content = path.read_text().splitlines()
content = bytearray(base64.b64decode(content))
content[7] = 42
pathlib.Path(sys.argv[2]).write_text(f"{comment}\n{base64.b64encode(content).decode()}\n")' \
        "$SOCKPROXYD_KEYS/usign.sec" "$made/bad/usign.sec"
    bad_key "$tool: a key for usign with a passphrase" 'usign.sec: the key has a passphrase' $tool
done
for tool in sign_feeds 'sign_apk'; do
    sign_apk() {
        "$ROOT/scripts/apk" -o "$made/none" -b "$daemon" "$here"
    }
    good_keys
    : >"$made/bad/apk.sec.pem"
    bad_key "$tool: an empty key for apk" 'apk.sec.pem: not a secret key in PEM, or damaged' $tool
    head -n 2 "$SOCKPROXYD_KEYS/apk.sec.pem" >"$made/bad/apk.sec.pem"
    bad_key "$tool: a cut key for apk" 'apk.sec.pem: not a secret key in PEM, or damaged' $tool
    cp "$made/bad/apk.pub.pem" "$made/bad/apk.sec.pem"
    bad_key "$tool: the public key in place of the one for apk" 'apk.sec.pem: not a secret key in PEM' $tool
    cp "$made/ed25519.pem" "$made/bad/apk.sec.pem"
    bad_key "$tool: another kind of key for apk" 'apk.sec.pem: not an ECDSA key on the curve P-256' $tool
    cp "$made/p384.pem" "$made/bad/apk.sec.pem"
    bad_key "$tool: a key for apk on another curve" 'apk.sec.pem: not an ECDSA key on the curve P-256' $tool
    cp "$made/locked.pem" "$made/bad/apk.sec.pem"
    bad_key "$tool: a key for apk with a passphrase" 'apk.sec.pem: the key has a passphrase' $tool
done
mkdir "$made/twice"
cp "$made"/dist/*_mipsel.ipk "$made/twice/"
cp "$made"/dist/*_mipsel.ipk "$made/twice/sockproxyd-more_$version-1_mipsel.ipk"
result "release: two packages of one name in a feed of opkg are refused" refused "two packages of one name" \
    "$ROOT/scripts/feeds" -o "$made/none" "$made"/twice/*.ipk
cp "$made"/dist/*_mipsel_24kc.apk "$made/twice/"
cp "$made"/dist/*_mipsel_24kc.apk "$made/twice/another.apk"
result "release: two packages of one name in a feed of apk are refused" refused "has this name and version" \
    "$ROOT/scripts/feeds" -o "$made/none" "$made"/twice/*.apk
result "release: a feed needs a package of a CPU" refused "no package of any CPU" \
    "$ROOT/scripts/feeds" -o "$made/none" "$made"/dist/*_all.ipk
if have signify-openbsd || apt_install signify-openbsd; then
    result "release: signify accepts the signature of Packages" signify-openbsd -V -p "$feeds/sockproxyd.pub" \
        -x "$feeds/opkg/mipsel/Packages.sig" -m "$feeds/opkg/mipsel/Packages"
fi

# A web server on a free port of loopback. It ends by itself if this script is ended.
timeout 600 "$python" -u -c '
import functools, http.server, sys
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
print(server.server_port, flush=True)
server.serve_forever()' "$feeds" >"$made/port" 2>/dev/null &
server=$!
until [ -s "$made/port" ]; do
    kill -0 "$server" || die "no web server"
    sleep 0.05
done
url=http://127.0.0.1:$(cat "$made/port")

# client MANAGER NAME FILE [KEYS]: fetches a package by its name.
client() {
    case $1 in
        opkg) "$python" -B "$PACKAGING/feed_client.py" opkg "$url/opkg/$here" "${4:-$feeds}/sockproxyd.pub" "$2" "$3" ;;
        apk) "$python" -B "$PACKAGING/feed_client.py" apk "$url/apk/$arch/packages.adb" "${4:-$feeds}/sockproxyd.pem" "$2" "$3" ;;
    esac
}
# changed FILE COMMAND...: runs the command while a byte in the middle of the file is another one.
changed() {
    local file=$1 status=0
    shift
    cp "$file" "$made/kept"
    "$python" -c 'import sys
content = bytearray(open(sys.argv[1], "rb").read())
content[len(content) // 2] ^= 1
open(sys.argv[1], "wb").write(content)' "$file"
    "$@" || status=$?
    cp "$made/kept" "$file"
    return $status
}

mkdir -p "$made/others"
cp "$made/other-keys/usign.pub" "$made/others/sockproxyd.pub"
cp "$made/other-keys/apk.pub.pem" "$made/others/sockproxyd.pem"
for manager in opkg apk; do
    case $manager in
        opkg)
            suffix=ipk folder=$feeds/opkg/$here index=$feeds/opkg/$here/Packages.sig
            # The changed letter may be none of base64's.
            package_error=MD5 index_error='the signature is wrong|binascii.Error'
            released=$made/dist/sockproxyd_$version-1_$here.ipk
            ;;
        apk)
            suffix=apk folder=$feeds/apk/$arch index=$feeds/apk/$arch/packages.adb
            # zlib or a checksum reports the changed byte.
            package_error=Error index_error='the signature is wrong'
            released=$made/dist/sockproxyd-$version-r1_$arch.apk
            ;;
    esac
    package=$(find "$folder" -name "sockproxyd[-_][0-9]*.$suffix")
    fetched=$made/fetched.$suffix
    result "release, $manager: a package is fetched by name" client $manager sockproxyd "$fetched"
    result "release, $manager: the fetched package is the released one" cmp "$fetched" "$released"
    result "release, $manager: a package for every CPU is fetched by name" client $manager sockproxyd-example "$made/example.$suffix"
    result "release, $manager: the beginning of a name finds nothing" refused "0 packages sockproxy" client $manager sockproxy "$made/none"
    result "release, $manager: a feed that another key has signed is refused" refused "another key" client $manager sockproxyd "$made/none" "$made/others"
    result "release, $manager: a changed package is refused" changed "$package" refused "$package_error" client $manager sockproxyd "$made/none"
    result "release, $manager: a changed ${index##*/} is refused" changed "$index" refused "$index_error" client $manager sockproxyd "$made/none"

    root=$(box "feed-$manager" ash)
    openwrt "$root" main
    put_program "$daemon" "$root" test/daemon
    install /bin/busybox "$root/bin/busybox"
    mkdir -p "$root/etc/apk" "$root/usr/lib/opkg/info"
    echo "$arch" >"$root/etc/apk/arch"
    echo 2024 >"$root/etc/opkg-age"
    install "$PACKAGING/opkg" "$root/bin/opkg"
    install "$PACKAGING/apk" "$root/sbin/apk"
    case $manager in
        opkg) cp "$fetched" "$root/test/" ;;
        apk) python3 -B "$PACKAGING/adb_reader.py" tar "$fetched" "$root/test/fetched.apk" ;;
    esac
    inside "$root" from-feed.sh "feed-$manager" $manager
done

if [ -n "${APK_STATIC:-}" ]; then
    # real_apk KEYS [PACKAGE]: installs a package in a root folder of its own that has the feed and the public key in KEYS.
    real_apk() {
        local root=$made/real
        rm -rf "$root"
        mkdir -p "$root"/{etc/apk/keys,etc/apk/repositories.d,lib/apk/db,var/cache/apk,var/log,tmp,dev,proc}
        echo "$arch" >"$root/etc/apk/arch"
        : >"$root/etc/apk/world"
        : >"$root/lib/apk/db/installed"
        # apk replaces the variable.
        # shellcheck disable=SC2016
        echo "$url"'/apk/${APK_ARCH}/packages.adb' >"$root/etc/apk/repositories.d/customfeeds.list"
        cp "$1/sockproxyd.pem" "$root/etc/apk/keys/"
        "$APK_STATIC" --root "$root" add --no-scripts --no-chown "${2:-sockproxyd}" && cmp "$root/usr/sbin/sockproxyd" "$daemon"
    }
    result "release, real apk: a package is added by name" real_apk "$feeds"
    result "release, real apk: a feed that another key has signed is refused" refused "UNTRUSTED signature" real_apk "$made/others"
    result "release, real apk: a changed package is refused" changed "$feeds/apk/$arch/sockproxyd-$version-r1.apk" \
        refused ERROR real_apk "$feeds"
    result "release, real apk: a signed file is added" real_apk "$feeds" "$made/dist/sockproxyd-$version-r1_$arch.apk"
    result "release, real apk: a file that another key has signed is refused" refused "UNTRUSTED signature" \
        real_apk "$made/others" "$made/dist/sockproxyd-$version-r1_$arch.apk"
    result "release, real apk: the index is what mkndx writes" sh -c "
        cd '$feeds/apk/$arch' && '$APK_STATIC' mkndx --allow-untrusted -d 'sockproxyd $version' -o '$made/real.adb' *.apk >/dev/null &&
        '$APK_STATIC' adbdump '$made/real.adb' | grep -v '^# ' >'$made/real.txt' &&
        '$APK_STATIC' adbdump packages.adb | grep -v '^# ' | diff '$made/real.txt' -"
    result "release, real apk: verify accepts every file of the feed" "$APK_STATIC" --keys-dir "$feeds" verify "$feeds/apk/$arch"/*
    result "release, real apk: verify refuses packages that another key has signed" refused UNTRUSTED \
        "$APK_STATIC" --keys-dir "$made/others" verify "$feeds/apk/$arch"/*.apk
fi
kill "$server"
wait "$server" 2>/dev/null || :

cp "$daemon" "$made/dist/sockproxyd-$here"
# bill TARGET...: the bill of materials of this machine's binary, as if it were for these targets.
bill() {
    python3 -B "$ROOT/scripts/lib/sbom.py" 1.96.0 1.2.5 1700000000 "$(IFS=, && echo "$*")" "$made/dist/sockproxyd-$here"
}
ours=$(target_name "$here")
bill "$ours" >"$made/dist/sockproxyd.cdx.json"
result "release: the same input gives the same bill of materials" diff <(bill "$ours") "$made/dist/sockproxyd.cdx.json"
result "release: the bill of materials has every linked crate, once, with its checksum" python3 -B - "$made/dist/sockproxyd.cdx.json" <<'BILL'
import json, sys
bill = json.load(open(sys.argv[1], encoding="utf-8"))
crates = [c for c in bill["components"] if c["purl"].startswith("pkg:cargo/")]
names = {c["name"] for c in crates}
assert {"mio", "rustls", "ring", "ureq"} <= names, names
assert not {"cc", "proptest", "syn"} & names, names
assert all(len(c["hashes"][0]["content"]) == 64 and c["licenses"] for c in crates)
assert {"musl", "rust-std"} <= {c["name"] for c in bill["components"]}
assert [n["name"] for c in crates for n in c.get("components", [])] == ["boringssl"]
refs = [c["bom-ref"] for c in bill["components"]] + [bill["metadata"]["component"]["bom-ref"]]
assert len(refs) == len(set(refs))
assert {d["ref"] for d in bill["dependencies"]} == set(refs)
assert all(set(d.get("dependsOn", [])) <= set(refs) for d in bill["dependencies"])
BILL
has_expander() { grep -q pkg:cargo/lzma-rs@; }
with_expander() {
    ! has_expander <"$made/dist/sockproxyd.cdx.json" && bill "$ours" "$(target_name mipsel)" >"$made/with.json" && has_expander <"$made/with.json"
}
result "release: the bill of materials has what expands the upload package, if there is one" with_expander

cp "$feeds"/sockproxyd.{pub,pem} "$made/dist/"
# No release has packages of another version.
rm "$made/dist"/sockproxyd-example*
notes=$("$ROOT/scripts/release-notes" "$made/dist")
result "release: the notes have the version" grep -qx "# sockproxyd $version" <<<"$notes"
result "release: the notes have the changes" grep -qx '### Added' <<<"$notes"
result "release: the notes name the files" grep -qF "| \`sockproxyd-$version-r1_ARCH.apk\` |" <<<"$notes"
result "release: the notes have the key" grep -qF "$(tail -n 1 "$feeds/sockproxyd.pub")" <<<"$notes"
touch "$made/dist/sockproxyd-surprise.txt"
result "release: the notes explain every file" refused "no row for .*/sockproxyd-surprise.txt" \
    "$ROOT/scripts/release-notes" "$made/dist"
rm "$made/dist/sockproxyd-surprise.txt"
result "release: the notes have no link into the source" sh -c "! printf '%s\n' \"\$1\" | grep -F '](docs/'" sh "$notes"

(cd "$made/dist" && find . -type f -printf '%P\n' | LC_ALL=C sort | xargs sha256sum >"$made/SHA256SUMS")
"$ROOT/scripts/sign" "$made/SHA256SUMS"
if have signify-openbsd; then
    result "release: signify accepts the signature of SHA256SUMS" \
        signify-openbsd -V -p "$feeds/sockproxyd.pub" -m "$made/SHA256SUMS"
fi
