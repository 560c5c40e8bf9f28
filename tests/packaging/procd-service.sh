#!/bin/sh
# Inside a box with the simulated procd: the parameters that the init script passes, and their order.
# usage: procd-service.sh BOX
box=$1
. /test/check.sh
read -r flavour </etc/flavour
parameters=/var/run/procd/current

printf '[host]\nlog=/tmp/proxy.log\n' >/etc/sockproxyd.cf
echo 'sockproxyd:x:250:250::/var:/bin/false' >>/etc/passwd
echo 'sockproxyd:x:250:' >>/etc/group

# Prints the process that procd runs: one, which does not supervise itself.
kept() {
    cat /var/run/procd/pid 2>/dev/null
}

# As rpcd asks for LuCI.
mkdir /etc/config
echo "config sockproxyd 'main'" >/etc/config/sockproxyd
(umask 077 && service configtest)
rm -r /etc/config
check "the proxy's user can enter the folder that configtest made for rpcd" equal "$(/test/busybox stat -c %a /var/run/sockproxyd)" 755

check "a restart before the first start prints nothing" equal "$(service restart 2>&1)" ""
check "it starts the proxy" greets
service stop
eventually number 0
: >/tmp/procd-loses
check "start when procd loses the service" says 'does not start, trying again' service start
check "the second try is without a jail" not grep -q '^jail' $parameters
check "procd has lost it once" not test -e /tmp/procd-loses
check "the proxy greets all the same" greets
service stop
eventually number 0

service enable
check "enable adds the start link, before Luup's" test -x /etc/rc.d/S80sockproxyd
check "boot" service boot
check "the proxy greets when boot has returned" greets
check "one process runs, procd's" equal "$(proxies)" "$(kept) "
check "procd gets the command" grep -qx 'command /usr/sbin/sockproxyd -L /tmp/sockproxyd.log -c /etc/sockproxyd.cf' $parameters
check "procd restarts without a limit" grep -q '^respawn [0-9]* 1 0$' $parameters
check "procd gets the program as a file" grep -q '^file .*/usr/sbin/sockproxyd$' $parameters
check "procd gets the configuration as a file" grep -q '^file .*/etc/sockproxyd.cf$' $parameters
logged='/bin/sh -c /etc/init.d/sockproxyd reload 2>&1 | logger -t sockproxyd'
check "procd watches /etc/config/sockproxyd, and what the reload prints is logged" grep -qxF "trigger config.change sockproxyd $logged" $parameters
check "no reload_signal, which would replace a restart" not grep -q '^reload_signal' $parameters
if [ "$flavour" = main ]; then
    check "procd runs the proxy as its own user" grep -q '^user sockproxyd$' $parameters
    check "procd logs standard error" grep -q '^stderr 1$' $parameters
    check "procd gives the proxy no privileges" grep -q '^no_new_privs 1$' $parameters
    check "the proxy takes no capability" not grep -q '^capabilities' $parameters
    check "procd makes a jail" grep -q '^jail sockproxyd procfs' $parameters
    for mount in 'ro /etc' 'ro /var/run/sockproxyd' 'rw /tmp'; do
        check "the jail has $mount" grep -qx "jail $mount" $parameters
    done
else
    check "the procd of 2014 gets no user, no jail and no privileges" not grep -q '^user\|^jail\|^no_new\|^capab\|^term' $parameters
fi

before=$(kept)
check "a second start" service start
check "a second start changes nothing" equal "$(kept)" "$before"
check "status" service status
mv /tmp/proxy.log /tmp/proxy.log.1
check "reload" service reload
check "reload reopens the log" eventually test -f /tmp/proxy.log
check "reload keeps the process" equal "$(proxies)" "$before "

# A new program, as an upgrade brings it.
cp /usr/sbin/sockproxyd /usr/sbin/sockproxyd.new
echo >>/usr/sbin/sockproxyd.new
mv /usr/sbin/sockproxyd.new /usr/sbin/sockproxyd
check "start with a new program" service start
check "start runs the new program" not equal "$(kept)" "$before"
check "the new program greets" greets
check "the old process has ended" equal "$(proxies)" "$(kept) "

before=$(kept)
check "restart" service restart
check "restart starts a new process" not equal "$(kept)" "$before"
check "the proxy greets when restart has returned" greets
check "one process runs after restart" equal "$(proxies)" "$(kept) "

before=$(kept)
printf '[host]\nbroken\n' >/etc/sockproxyd.cf
check "start refuses a broken configuration" says 'sockproxyd.cf:2' service start
check "restart refuses it, too" not service restart
check "reload refuses it, too" not service reload
check "the running proxy continues" equal "$(proxies)" "$before "
check "the running proxy greets" greets

printf '[host]\nport=2611\n' >/etc/sockproxyd.cf
check "start with another port" service start
check "the proxy greets at that port" greets 2611
mkdir -p /etc/config
printf "config sockproxyd 'main'\n\toption port '2612'\n\toption debug '1'\n" >/etc/config/sockproxyd
check "start with /etc/config/sockproxyd" service start
check "the proxy greets at the port of that file" greets 2612
check "its settings come after the configuration" \
    grep -qx 'command .* -c /etc/sockproxyd.cf -c /var/run/sockproxyd/uci.cf' $parameters
check "procd gets them as a file" grep -q '^file .*/var/run/sockproxyd/uci.cf$' $parameters
check "debug is among them" grep -qx 'debug=1' /var/run/sockproxyd/uci.cf
printf "config sockproxyd 'main'\n\toption enabled '0'\n" >/etc/config/sockproxyd
check "start of a disabled proxy" service start
check "start of a disabled proxy ends it" eventually number 0
rm /etc/config/sockproxyd

# --- UCI: all kinds of sections, errors, interfaces ---

uci() {
    cat >/etc/config/sockproxyd
}
generated=/var/run/sockproxyd/uci.cf
uci <<'UCI'
config sockproxyd 'main'
	option enabled '1'
	option jail_mount '/no-such-folder'

config host 'host'
	option port '2612'
	list allow 'loopback'
	list allow '192.168.0.0/16'

config tls "tls"
	option luup 'none'

config status
	option port 2617
	option hosts 'box.lan'

config direct
	option port '2618'
	option target 'mail.example.com:25'
	list option 'NTFY=55/urn:example-com:serviceId:MailProxy1/HandleReceive/0'

config direct
	option enabled 'off'
	option port '2619'
	option target '127.0.0.1:9'

config serve 'amplifier'
	option port '2620'
	option path '/amplifier'
	list orig 'http://192.168.0.5'
	list orig 'http://localhost:*'
	option pngi '10'
	option target '192.168.0.15:23'
	option option 'CTIM=900'
UCI
check "start with sections of all kinds" service start
check "the proxy greets at the port of [host]" greets 2612
check "the port of [status] answers" says 'HTTP/1' sh -c 'printf "GET / HTTP/1.0\r\n\r\n" | /test/busybox nc 127.0.0.1 2617'
cat >/tmp/expected <<'INI'
; sockproxyd.host.port
[host]
port=2612
; sockproxyd.host.allow
[host]
allow=loopback,192.168.0.0/16
; sockproxyd.tls.luup
[tls]
luup=none
; sockproxyd.@status[0].port
[status]
port=2617
; sockproxyd.@status[0].hosts
[status]
hosts=box.lan
; sockproxyd.@direct[0].target
[direct]
2618=CONN mail.example.com:25 NTFY=55/urn:example-com:serviceId:MailProxy1/HandleReceive/0
; sockproxyd.amplifier.target
[serve]
2620=/amplifier ORIG=http://192.168.0.5,http://localhost:* PNGI=10 CONN 192.168.0.15:23 CTIM=900
INI
check "the settings are the same in the proxy's own words" diff /tmp/expected $generated

before=$(kept)
cp /etc/config/sockproxyd /tmp/good
# refuses NAME OPTION REASON: reload refuses what is on standard input, and names the option.
refuses() {
    { cat /tmp/good; echo; cat; } >/etc/config/sockproxyd
    check "refused: $1" not service reload
    check "named: $1" says "sockproxyd: /etc/config/sockproxyd: sockproxyd.$2" service reload
    check "the proxy continues: $1" equal "$(proxies)" "$before "
    check "the settings stay: $1" diff /tmp/expected $generated
}
refuses "a bad port" "host.port: bad value 'x' for 'port'" <<'UCI'
config host 'host'
	option port 'x'
UCI
refuses "an unknown option" "limits.conections: unknown key" <<'UCI'
config limits 'limits'
	option conections '5'
UCI
refuses "an unknown type of section" "web: unknown section type" <<'UCI'
config web 'web'
	option port '5'
UCI
refuses "an item of a list" "host.stop: bad value" <<'UCI'
config host 'host'
	list stop 'loopback'
	list stop '10.0.0.0/99'
UCI
refuses "a target" "@direct\[2\].target: bad target" <<'UCI'
config direct
	option port '2621'
	option target 'nowhere'
UCI
refuses "no target" "@direct\[2\].target: missing" <<'UCI'
config direct
	option port '2621'
UCI
refuses "an option of CONN" "@serve\[1\].target: .*Invalid option" <<'UCI'
config serve
	option port '2621'
	option target '127.0.0.1:9'
	list option 'NOSUCH=1'
UCI
refuses "an unknown option of a listener" "@serve\[1\].origin: unknown option" <<'UCI'
config serve
	option port '2621'
	option origin '*'
	option target '127.0.0.1:9'
UCI
refuses "enabled" "main.enabled: 'perhaps' is neither" <<'UCI'
config sockproxyd 'main'
	option enabled 'perhaps'
UCI
cp /tmp/good /etc/config/sockproxyd
printf '#!/bin/sh\necho "uci: Parse error (invalid command) at line 1, byte 0" >&2\nexit 1\n' >/sbin/uci
chmod 755 /sbin/uci
check "a file that UCI cannot parse is refused" says 'Parse error' service reload
rm -f /sbin/uci

# configtest is what LuCI asks for.
cp $generated /tmp/generated.before
cp /etc/config/sockproxyd /tmp/uci.before
check "configtest accepts these settings" service configtest
printf "config limits\n\toption line '7'\n" >>/etc/config/sockproxyd
check "configtest refuses a wrong one" not service configtest
check "it names the option" says 'line: bad value .7. for' service configtest
check "it puts nothing into force" cmp $generated /tmp/generated.before
check "it leaves no file" not test -e $generated.test
mv /tmp/uci.before /etc/config/sockproxyd
rm -f /tmp/generated.before

check "reload with the same settings" service reload
check "it keeps the process" equal "$(proxies)" "$before "
sed -i "s/'none'/'verify'/; s/2618/2622/" /etc/config/sockproxyd
check "reload with settings that the proxy can change" service reload
check "it keeps the process, too" equal "$(proxies)" "$before "
check "the proxy has another listener" eventually grep -q ':0A3E ' /proc/net/tcp /proc/net/tcp6
sed -i "s/'2612'/'2623'/" /etc/config/sockproxyd
check "reload with another port" service reload
check "it starts another process" not equal "$(proxies)" "$before "
check "the proxy greets at the other port" greets 2623

if [ "$flavour" = main ]; then
    check "a folder that is not there is named" says 'there is no /no-such-folder' service start
    sed -i 's|/no-such-folder|/test|' /etc/config/sockproxyd
    check "reload with another folder" service reload
    check "the jail has the folder" grep -qx 'jail ro /test' $parameters
    check "the proxy may take no low ports yet" not grep -q '^capabilities' $parameters
    before=$(kept)
    /test/busybox nc -l -p 97 >/dev/null &
    eventually grep -q ':0061 .* 0A ' /proc/net/tcp /proc/net/tcp6
    sed -i 's/2622/97/' /etc/config/sockproxyd
    check "reload with a low port that another program has" service reload
    check "it keeps the process, which could not start" equal "$(proxies)" "$before "
    kill $!
    sed -i "s/'97'/'99'/" /etc/config/sockproxyd
    check "reload with a low port" service reload
    check "the proxy may take low ports then" grep -qx 'capabilities /etc/capabilities/sockproxyd.json' $parameters
    before=$(kept)
    sed -i "s/'99'/'98'/" /etc/config/sockproxyd
    check "reload with another low port" service reload
    check "the proxy has it" eventually grep -q ':0062 .* 0A ' /proc/net/tcp /proc/net/tcp6
    sed -i "s/'98'/'2622'/" /etc/config/sockproxyd
    check "reload without a low port" service reload
    check "both keep the process" equal "$(proxies)" "$before "
    mkdir -p /mnt/keys /root/ca /var/log
    printf '[host]\nport=2611\nlog=/var/log/proxy.log\n[tls]\nca=/root/ca/ca.pem\n' >/etc/sockproxyd.cf
    printf "config tls 'tls'\n\toption directory '/mnt/keys'\n" >/etc/config/sockproxyd
    service reload 2>/dev/null
    for mount in 'rw /var/log' 'ro /root/ca' 'ro /mnt/keys'; do
        check "the jail has what the configuration names: $mount" grep -qx "jail $mount" $parameters
    done
    before=$(kept)
    sed -i 's|/mnt/keys|/root/ca|' /etc/config/sockproxyd
    service reload 2>/dev/null
    check "reload with another folder of keys makes another jail" not equal "$(kept)" "$before"
    check "the jail has nothing else" equal "$(grep '^jail r' $parameters | sort -u | wc -l | tr -d ' ')" 5
    printf '[host]\nport=2611\n' >/etc/sockproxyd.cf
    printf "config sockproxyd 'main'\n\toption jail '0'\n\toption port '2611'\n" >/etc/config/sockproxyd
    service reload
    check "no jail" not grep -q '^jail\|^no_new\|^capab' $parameters

    printf "config host 'host'\n\toption interface 'lan'\n\toption port '2612'\n" >/etc/config/sockproxyd
    service stop
    eventually number 0
    check "start without an address" says 'waiting for interface lan' service start
    check "no process runs then" number 0
    check "procd watches the interface" grep -qxF "trigger interface.*.up lan $logged" $parameters
    echo 127.0.0.2 >/tmp/address.lan
    check "reload when the interface has come up" service reload
    check "the proxy greets at its address" greets 2612 127.0.0.2
    check "the proxy greets at no other address" not greets 2612
    before=$(kept)
    check "reload when nothing has changed" service reload
    check "it keeps the process there" equal "$(proxies)" "$before "
    echo 127.0.0.3 >/tmp/address.lan
    check "reload when the address has changed" service reload
    check "the proxy greets at the other address" greets 2612 127.0.0.3
    before=$(kept)
    rm -f /tmp/address.lan
    check "reload when the interface is down" service reload
    check "start then, too" service start
    check "both keep the process" equal "$(proxies)" "$before "
    check "a proxy that dies meanwhile listens on that address only" grep -qx 'ip=127.0.0.3' $generated
fi
rm /etc/config/sockproxyd
service stop
eventually number 0

# --- certificates and keys ---

mkdir -p /etc/sockproxyd.d
: >/etc/sockproxyd.d/key.pem
chmod 600 /etc/sockproxyd.d/key.pem
printf '[host]\nport=2611\n[tls]\nca=/etc/sockproxyd.d/gone.pem\n' >/etc/sockproxyd.cf
check "start names a file that is missing" says 'warning: .*gone.pem: No such file' service start
check "the proxy greets all the same" greets 2611
printf '[host]\nport=2611\n' >/etc/sockproxyd.cf
service reload
# Only root can give files away.
if [ "$flavour" = main ] && chgrp 250 /tmp/good 2>/dev/null; then
    mode() {
        stat -c '%a %u %g' "$1"
    }
    check "the proxy's user may read a key" equal "$(mode /etc/sockproxyd.d/key.pem)" "640 0 250"
    check "no other user may enter the folder of keys" equal "$(mode /etc/sockproxyd.d)" "2750 0 250"
    check "the proxy's user may read the configuration" equal "$(mode /etc/sockproxyd.cf)" "644 0 250"
fi
service stop
eventually number 0

# --- a package manager that starts what it has installed ---

: >/var/run/sockproxyd.off
check "start after the upgrade of a disabled proxy" says 'stays disabled' service start
check "no process runs then" number 0
check "the next start" service start
check "the proxy runs" greets 2611
service stop
eventually number 0

# The processes of the simulated procd are in the number.
created service start
case $flavour in
    main) most=33 ;;
    *) most=23 ;;
esac
check "a start creates few processes ($processes_created)" test "$processes_created" -le $most
service stop
eventually number 0

check "reload starts a stopped proxy" service reload
check "the proxy greets after reload" greets 2611
check "stop" service stop
check "the proxy ends" eventually not greets 2611
check "status of a stopped proxy fails" not service status

# --- a slow machine: the program starts and ends slowly ---

mv /usr/sbin/sockproxyd /tmp/sockproxyd
cat >/usr/sbin/sockproxyd <<'SLOW'
#!/bin/sh
case " $* " in *" -t "* | *" --probe="*) exec /tmp/sockproxyd "$@" ;; esac
sleep 0.5
/tmp/sockproxyd "$@" &
it=$!
trap 'sleep 1.5; kill $it; wait $it; exit 0' TERM
wait $it
SLOW
chmod 755 /usr/sbin/sockproxyd
check "start of a slow proxy" service start
check "the slow proxy greets when start has returned" greets 2611
before=$(proxies)
check "restart of a slow proxy" service restart
check "the slow proxy greets when restart has returned" greets 2611
check "the slow proxy is another process" not equal "$(proxies)" "$before"
check "one slow process runs" number 1
check "stop" service stop
