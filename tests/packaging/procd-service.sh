#!/bin/sh
# Inside a box with the simulated procd: the parameters that the init script passes, and their order.
# usage: procd-service.sh BOX
box=$1
. /test/check.sh
read -r flavour </etc/flavour
parameters=/var/run/procd/current

printf '[host]\nlog=/tmp/proxy.log\n' >/etc/sockproxyd.cf
echo 'sockproxyd:x:250:250::/var:/bin/false' >>/etc/passwd

# Prints the process that procd runs: one, which does not supervise itself.
kept() {
    cat /var/run/procd/pid 2>/dev/null
}

service enable
check "enable adds the start link, before Luup's" test -x /etc/rc.d/S80sockproxyd
check "boot" service boot
check "the proxy greets when boot has returned" greets
check "one process runs, procd's" equal "$(proxies)" "$(kept) "
check "procd gets the command" grep -qx 'command /usr/sbin/sockproxyd -L /tmp/sockproxyd.log -c /etc/sockproxyd.cf' $parameters
check "procd restarts without a limit" grep -q '^respawn [0-9]* 1 0$' $parameters
check "procd gets the program as a file" grep -q '^file .*/usr/sbin/sockproxyd$' $parameters
check "procd gets the configuration as a file" grep -q '^file .*/etc/sockproxyd.cf$' $parameters
check "procd watches /etc/config/sockproxyd" grep -q '^trigger config.change sockproxyd /etc/init.d/sockproxyd start$' $parameters
if [ "$flavour" = main ]; then
    check "procd runs the proxy as its own user" grep -q '^user sockproxyd$' $parameters
    check "procd logs standard error" grep -q '^stderr 1$' $parameters
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
check "its settings come after the configuration" grep -qx 'command .* -c /etc/sockproxyd.cf -p 2612 -D' $parameters
printf "config sockproxyd 'main'\n\toption enabled '0'\n" >/etc/config/sockproxyd
check "start of a disabled proxy" service start
check "start of a disabled proxy ends it" eventually number 0
rm /etc/config/sockproxyd

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
