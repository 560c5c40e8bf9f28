#!/bin/sh
# Inside a box with the stand-in for procd: what the init script tells it, and in which order.
# usage: procd-service.sh BOX
box=$1
. /test/check.sh
read -r flavour </etc/flavour
saying=/var/run/procd/said

printf '[host]\nlog=/tmp/proxy.log\n' >/etc/sockproxyd.cf
echo 'sockproxyd:x:250:250::/var:/bin/false' >>/etc/passwd

# The process that procd keeps: one, which does not supervise itself.
kept() {
    cat /var/run/procd/pid 2>/dev/null
}

service enable
check "enable links it before Luup" test -x /etc/rc.d/S80sockproxyd
check "boot" service boot
check "it greets when boot has returned" greets
check "one process, procd's" equal "$(proxies)" "$(kept) "
check "it is told what to run" grep -qx 'command /usr/sbin/sockproxyd -L /tmp/sockproxyd.log -c /etc/sockproxyd.cf' $saying
check "procd is never to give up" grep -q '^respawn [0-9]* 1 0$' $saying
check "it is told which files count" grep -q '^file .*/usr/sbin/sockproxyd$' $saying
check "the configuration is one" grep -q '^file .*/etc/sockproxyd.cf$' $saying
check "it is told to watch /etc/config/sockproxyd" grep -q '^trigger config.change sockproxyd /etc/init.d/sockproxyd start$' $saying
if [ "$flavour" = main ]; then
    check "it is told to run it as its own user" grep -q '^user sockproxyd$' $saying
    check "and to log what it says" grep -q '^stderr 1$' $saying
fi

before=$(kept)
check "a second start" service start
check "changes nothing" equal "$(kept)" "$before"
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
check "starts that" not equal "$(kept)" "$before"
check "it greets" greets
check "the old one is gone" equal "$(proxies)" "$(kept) "

before=$(kept)
check "restart" service restart
check "restart starts anew" not equal "$(kept)" "$before"
check "it greets when restart has returned" greets
check "alone" equal "$(proxies)" "$(kept) "

before=$(kept)
printf '[host]\nbroken\n' >/etc/sockproxyd.cf
check "start refuses a broken configuration" says 'sockproxyd.cf:2' service start
check "restart as well" not service restart
check "reload as well" not service reload
check "what runs goes on" equal "$(proxies)" "$before "
check "and greets" greets

printf '[host]\nport=2611\n' >/etc/sockproxyd.cf
check "start with another port" service start
check "it greets there" greets 2611
mkdir -p /etc/config
printf "config sockproxyd 'main'\n\toption port '2612'\n\toption debug '1'\n" >/etc/config/sockproxyd
check "start with /etc/config/sockproxyd" service start
check "it greets at that port" greets 2612
check "its settings follow the configuration" grep -qx 'command .* -c /etc/sockproxyd.cf -p 2612 -D' $saying
printf "config sockproxyd 'main'\n\toption enabled '0'\n" >/etc/config/sockproxyd
check "start of a disabled one" service start
check "ends it" eventually number 0
rm /etc/config/sockproxyd

check "reload starts what does not run" service reload
check "it greets" greets 2611
check "stop" service stop
check "it goes" eventually not greets 2611
check "status, stopped" not service status

# --- a slow box: the program takes its time to come and to go ---

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
check "start of a slow one" service start
check "it greets when start has returned" greets 2611
before=$(proxies)
check "restart of a slow one" service restart
check "it greets when restart has returned" greets 2611
check "which is another process" not equal "$(proxies)" "$before"
check "alone" number 1
check "stop" service stop
