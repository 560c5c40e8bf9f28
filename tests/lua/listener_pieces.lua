-- A listener without a daemon: the line of LSTN, what the proxy writes split at every place, proxies that do not listen or
-- end, and the timer.
--
-- usage: lua5.1 listener_pieces.lua, in this directory

local lib = require "lib"
local socket = require "socket"
local fakes = require "fakes"
local Clock = require "L_SockProxyClock"
local Listener = require "L_SockProxyListener"
local proxy = require "L_SockProxyClient"

local fake, sent_bytes = fakes.socket, fakes.sent_bytes

-- The line of LSTN.
local function command( options ) return ( Listener.command( options ) ) end
lib.equal( command { port = 8081 }, "LSTN 8081" )
lib.equal( command { port = "8081", address = "0.0.0.0", protocol = "ws", path = "/panel", on_incoming = print },
    "LSTN 0.0.0.0:8081 PATH=/panel PRTO=ws" )
lib.equal( command { port = 1, address = "::1", protocol = "tls", certificate = "a.pem", key = "a.key", wait = 3 },
    "LSTN [::1]:1 CERT=a.pem PKEY=a.key PRTO=tls WAIT=3" )
lib.equal( command { port = 1, address = "[::1]" }, "LSTN [::1]:1" )
lib.equal( command { port = 1, origins = { "http://*.home", "https://a:8443" }, subprotocols = "chat, news", headers = true },
    "LSTN 1 ORIG=http://%2a.home,https://a:8443 RHDR=on SUBP=chat,news" )
lib.equal( command { port = 1, origins = "*", headers = false, auth = "u:p ss%\n", WAIT = 4 },
    "LSTN 1 AUTH=u:p%20ss%25%0a ORIG=%2a RHDR=off WAIT=4" )
lib.equal( command { port = 1, address = "*", path = "/a%20b", notify = { device = 7, service = "s", action = "A", pid = "mine" } },
    "LSTN *:1 PATH=/a%20b NTFY=7/s/A/mine" )
for _, options in ipairs {
    {}, { port = 0 }, { port = 65536 }, { port = 1.5 }, { port = "x" }, { port = "1\nSTOP" }, { port = 1, address = "a b" },
    { port = 1, address = "a\nSTOP" }, { port = 1, path = "/a b" }, { port = 1, protocol = "ws\nSTOP" },
    { port = 1, notify = { device = 1, service = "s", action = "a/b" } }, { port = 1, notify = { device = 1, service = "s" } },
} do
    lib.equal( command( options ), nil )
end
for _, name in ipairs { "origins", "subprotocols", "auth", "certificate", "key", "wait", "headers" } do
    lib.check( not command( { port = 1, [name] = "a\r\nSTOP" } ):find( "[\r\n]" ), name )
end

local GREETING = "OK TOGGLEDBITS-SOCKPROXY 1 a1\n"
local ALL = "OK CAPA BLKS RTIM NTFY CONN UDP V6 TLS WS MESG LINE DEFL LSTN KEEP EVNT JSON LENI MCST\n"
local OK = "OK LSTN a1\n"

-- Listens against fake sockets, one for each connection to the proxy. Without one, the proxy is not there.
local function listen( sockets, options )
    options.port = options.port or 8081
    options.log = options.log or function() end
    options.on_incoming = options.on_incoming or function() end
    options.timeout = options.timeout or 5
    options.proxy = {
        host = "10.0.0.1", port = 99,
        connect = function( host, port )
            lib.equal( host .. ":" .. port, "10.0.0.1:99" )
            local sock = table.remove( sockets, 1 )
            if not sock then return nil, "connection refused" end
            return sock
        end,
    }
    local listener, why = proxy.listen( options )
    return listener or why
end

-- What the proxy writes, split at every place: by a call that waits, and by one that does not.
local HEAD = "GET /b HTTP/1.1\r\nHost: h:1\r\nX-Two: a\r\nX-two:  b \r\n\r\n"
local said = GREETING .. ALL .. OK .. "INCO 2a 192.168.1.9:51000 /panel?a=1&b=x%20y+z&a=2&=&c chat,news\nOK DENY 77\n"
    .. "INCO 2b [fe80::1]:80 /b - " .. #HEAD .. "\n" .. HEAD .. "ERR DENY No such id\nINCO 2c 10.0.0.2:7 - -\n"
for at = 0, #said do
    for _, timeout in ipairs { 5, 0 } do
        local got = {}
        local sock = fake { said:sub( 1, at ), said:sub( at + 1 ) }
        local listener = listen( { sock }, {
            timeout = timeout, path = "/panel", on_incoming = function( self, arrival )
                lib.check( self:is_listening() and self.pid == "a1" )
                got[#got + 1] = arrival
            end,
            on_listening = function( self ) got.listening = self end,
        } )
        lib.check( type( listener ) == "table", listener )
        if timeout > 0 then lib.equal( #got, 0 ) end
        -- On a busy machine a turn may be too long for all: the rest follows in the next one.
        for _ = 1, 5 do repeat local more = listener:poll() until not more end
        lib.equal( sent_bytes( sock ), "CAPA\nLSTN 8081 PATH=/panel PRTO=ws\n" )
        lib.equal( got.listening, timeout == 0 and listener or nil )
        lib.equal( #got, 3 )
        lib.equal( got[1].id .. " " .. got[1].peer .. " " .. got[1].address, "2a 192.168.1.9:51000 192.168.1.9" )
        lib.equal( got[1].target .. " " .. got[1].path, "/panel?a=1&b=x%20y+z&a=2&=&c /panel" )
        lib.equal( got[1].query.a .. got[1].query.b .. got[1].query.c .. got[1].query[""], "1x y z" )
        lib.equal( table.concat( got[1].subprotocols, ";" ), "chat;news" )
        lib.equal( got[1].head or got[1].headers, nil )
        lib.equal( got[2].peer .. " " .. got[2].address, "[fe80::1]:80 fe80::1" )
        lib.equal( #got[2].subprotocols, 0 )
        lib.equal( got[2].head, HEAD )
        lib.equal( got[2].headers.host .. got[2].headers["x-two"], "h:1a, b" )
        lib.check( got[3].id == "2c" and not got[3].path and not got[3].target and next( got[3].query ) == nil )
        listener:close()
        lib.like( sent_bytes( sock ), "\nQUIT\n$" )
        lib.check( sock.closed )
        lib.equal( listener:poll(), nil )
        listener:close()
    end
end

-- Proxies that do not listen. A call that waits returns the reason, and closes its socket.
local function refused( pieces, options, ending )
    local sock = fake( pieces, ending )
    options.on_lost = function() error "a call that waits returns the reason" end
    local why = listen( { sock }, options )
    lib.check( sock.closed )
    return why
end
lib.equal( listen( {}, {} ), "no proxy at 10.0.0.1:99: connection refused" )
lib.equal( refused( { "220 mail\r\n" }, {} ), "the program at 10.0.0.1:99 is not sockproxyd" )
lib.equal( refused( { "ERR ACCESS denied\n" }, {} ), "the proxy at 10.0.0.1:99 replies: ERR ACCESS denied" )
lib.equal( refused( { GREETING, ALL, "ERR LSTN address in use\n" }, {} ), "address in use" )
lib.equal( refused( { GREETING, ALL, "ERR INVALID COMMAND\n" }, {} ), "ERR INVALID COMMAND" )
lib.equal( refused( { GREETING, "OK CAPA BLKS RTIM NTFY CONN UDP\n", "ERR INVALID COMMAND\n" }, { protocol = "wss" } ),
    "the proxy at 10.0.0.1:99 is the Lua daemon or too old: it lacks LSTN WS TLS" )
lib.like( refused( { GREETING, "ERR INVALID COMMAND\n" }, { protocol = "tcp" }, "closed" ), "it lacks LSTN$" )
lib.equal( refused( { GREETING }, {}, "closed" ), "the proxy does not reply: closed" )
lib.equal( refused( { GREETING .. string.rep( "x", 20000 ) }, {} ), "line too long" )
lib.equal( refused( { GREETING .. ALL }, { patience = 0.05 } ), "the proxy does not reply: timeout" )
lib.equal( listen( { fake {} }, { protocol = "ws\n" } ), "Invalid option PRTO" )
lib.equal( select( 2, proxy.listen { port = 1 } ), "listen needs on_incoming" )

-- A proxy that takes long on a busy machine.
local slow, real_time, real_sleep, time = fake { GREETING, ALL, OK }, socket.gettime, socket.sleep, 0
local receive, pauses = slow.receive, 0
function slow.receive( ... )
    pauses = pauses + 1
    if pauses % 3 ~= 0 then return nil, "timeout", "" end
    return receive( ... )
end
function socket.gettime() return time end
function socket.sleep() time = time + 3 end
local patient = listen( { slow }, { patience = 30 } )
socket.gettime, socket.sleep = real_time, real_sleep
lib.check( type( patient ) == "table", patient )
patient:close()

-- Denying. A reason is one line.
local function listening( options, ... )
    local sock = fake { GREETING .. ALL .. OK, ... }
    options = options or {}
    local listener = listen( { sock }, options )
    lib.check( type( listener ) == "table", listener )
    sock.taken = {}
    return listener, sock
end
local listener, sock = listening()
lib.equal( listener:deny( "2a" ) and listener:deny( "2a", 404 ) and listener:deny( "2a", 403, " not\r\nhere " ), true )
lib.equal( sent_bytes( sock ), "DENY 2a 403\nDENY 2a 404\nDENY 2a 403 not here\n" )
for _, status in ipairs { 200, 101, 299, 600, 403.5, "403" } do lib.equal( listener:deny( "2a", status ), nil ) end
listener:close()
lib.equal( select( 2, listener:deny( "2a" ) ), "not listening" )

-- A callback that fails denies the arrival and is logged. A callback may poll, and may close the listener.
local logged = {}
listener, sock = listening( { log = function( words ) logged[#logged + 1] = words end, on_incoming = function( self, arrival )
    lib.equal( self:poll(), false )
    if arrival.id == "b" then error "oops" end
    if arrival.id == "c" then self:close() end
    lib.check( arrival.id ~= "d", "the listener is closed" )
end }, "INCO a p:1 / -\nINCO b p:1 / -\nINCO c p:1 / -\nINCO d p:1 / -\n" )
listener:poll()
lib.equal( sent_bytes( sock ), "DENY b 500\nQUIT\n" )
lib.equal( #logged, 1 )
lib.like( logged[1], "port 8081: on_incoming: .*oops" )

-- Claiming: ACPT with the listener's notification, without its pid.
local function claim( replies, options, of )
    local claimed = fake( replies )
    local group = {}
    local own = of or { notify = { device = 7, service = "s", action = "a", pid = "owner" } }
    own.group = group
    local one = listening( own )
    local dialled = false
    one.options.proxy.connect = function()
        dialled = true
        return claimed
    end
    local conn, why = one:accept( "2a", options )
    if conn then lib.equal( group[conn], true ) else lib.equal( claimed.closed, dialled ) end
    lib.equal( group[one], true )
    one:close()
    lib.equal( group[one], nil )
    return conn or why, claimed
end
local accepted = GREETING .. "OK ACPT 2a\nTEXT 2\nhiPING 1\npCLOS 1001 3\nbye"
for at = 0, #accepted do
    local got = {}
    local function record( word ) return function( _, ... ) got[#got + 1] = word .. table.concat( { ... }, " " ) end end
    local conn
    conn, sock = claim( { accepted:sub( 1, at ), accepted:sub( at + 1 ) }, {
        PNGI = 30, SUBP = "chat", HDRS = { ["X-A"] = "b" },
        on_message = record "message ", on_ping = record "ping ", on_close = record "close ",
    } )
    lib.check( type( conn ) == "table", conn )
    lib.equal( conn.pid, "2a" )
    for _ = 1, 5 do conn:poll() end
    lib.equal( table.concat( got, ";" ), "message hi TEXT;ping p;close 1001 bye" )
    lib.equal( sent_bytes( sock ), "ACPT 2a HDRS=X-A:b PACE=0.1 PNGI=30 SUBP=chat NTFY=7/s/a\n" )
end
lib.equal( claim( { GREETING .. "ERR ACPT No such id\n" } ), "No such id" )
lib.equal( claim( { GREETING .. "ERR ACPT Invalid option VRFY\n" }, { VRFY = "none" } ), "Invalid option VRFY" )
lib.equal( select( 2, proxy.accept( "2a\nSTOP", {} ) ), "invalid id: 2a\nSTOP" )
local conn
conn, sock = claim( { GREETING .. "OK ACPT 2a\n", "bytes" }, nil, { protocol = "tcp" } )
lib.equal( conn.framing .. sent_bytes( sock ), "RAWACPT 2a\n" )
-- A kept connection is known by the pid that the plugin chose.
lib.like( claim( {}, { KEEP = 300 } ), "^KEEP needs notify.pid" )
conn, sock = claim( { GREETING .. "OK ACPT 2a\n" }, { KEEP = 300, notify = { device = 1, service = "s", action = "a", pid = "12345678" } } )
lib.equal( sent_bytes( sock ), "ACPT 2a KEEP=300 PACE=0.1 NTFY=1/s/a/12345678\n" )
lib.equal( conn.pid, "12345678" )
-- Without a wait: on_open and on_error follow.
for reply, expected in pairs { ["OK ACPT 2a\n"] = "open", ["ERR ACPT No such id\n"] = "error No such id" } do
    local got = {}
    conn = claim( { GREETING, reply }, {
        timeout = 0, on_open = function() got[#got + 1] = "open" end,
        on_error = function( _, words ) got[#got + 1] = "error " .. words end,
    } )
    conn:poll()
    lib.equal( table.concat( got, ";" ), expected )
end

-- The proxy ends: it is asked again after 1 s, 2 s, 4 s and so on up to a minute. A reason that stays the same is reported
-- once. The time is faked.
local real_gettime, now = socket.gettime, 1000
function socket.gettime() return now end
local sockets, events = { fake( { GREETING .. ALL .. OK, "INCO a p:1 / -\n" }, "closed" ) }, {}
local function record( name ) return function( _, what ) events[#events + 1] = name .. ( type( what ) == "string" and what or "" ) end end
local group = {}
listener = listen( sockets, {
    group = group, on_incoming = record "incoming", on_lost = record "lost ", on_listening = record "listening",
} )
local function took() -- the events since the last call
    local words = table.concat( events, ";" )
    events = {}
    return words
end
proxy.handle( group, "another" )
lib.equal( took(), "incoming;lost the proxy has ended it" )
lib.equal( listener:is_listening(), false )
for _, delay in ipairs { 1, 2, 4, 8, 16, 32, 60, 60 } do
    now = now + delay - 0.1
    sockets[1] = nil
    proxy.handle( group )
    lib.equal( took(), "" )
    now = now + 0.1
    proxy.handle( group )
    lib.equal( took(), delay == 1 and "lost no proxy at 10.0.0.1:99: connection refused" or "" )
end
-- A short life keeps the delay: two listeners that take a path from each other do not do it all the time.
for _, case in ipairs { { 149, 60 }, { 150, 1 } } do
    local lasts, delay = case[1], case[2]
    now = now + 60
    sockets[1] = fake { GREETING .. ALL .. OK }
    sock = sockets[1]
    proxy.handle( group )
    lib.equal( took(), "listening" )
    lib.check( listener:is_listening() )
    now = now + lasts
    function sock.receive() return nil, "closed", "" end
    proxy.handle( group )
    lib.equal( took(), "lost the proxy has ended it" )
    lib.equal( listener.retry_at - Clock.now(), delay )
end
-- A clock that is set back does not extend the wait.
now = now - 1000000
proxy.handle( group )
now = now + 1
sockets[1] = fake { GREETING .. ALL .. OK }
proxy.handle( group )
lib.equal( took(), "listening" )
listener:close()

-- The proxy ends in the middle of a head: the next one is not taken for the rest.
sockets = {
    fake( { GREETING .. ALL .. OK, "INCO a p:1 / - 100\nGET / HTTP/1.1\r\n" }, "closed" ),
    fake { GREETING .. ALL .. OK, "INCO b p:1 / -\n" },
}
listener = listen( sockets, { on_incoming = function( _, arrival ) events[#events + 1] = arrival.id end } )
listener:poll()
now = now + 1
listener:poll()
lib.equal( took(), "b" )
listener:close()

-- A proxy that hangs: no poll waits long, and after `patience` the next one is tried.
local hung, waited = fake {}, 0
function socket.sleep( seconds )
    waited = waited + seconds
    -- The time that the socket waits.
    now = now + seconds
end
sockets = { hung, fake { GREETING .. ALL .. OK } }
listener = listen( sockets, { timeout = 0, patience = 2, on_lost = record "lost " } )
for _ = 1, 3 do listener:poll() end
lib.equal( took(), "" )
now = now + 2.1
listener:poll()
lib.equal( took(), "lost the proxy does not reply: timeout" )
sockets[1], sockets[2] = hung, nil
hung.closed = false
now = now + 1
waited = 0
listener:poll()
lib.check( waited > 0 and waited <= 0.06, waited )
listener:close()
socket.sleep = real_sleep

-- The timer: one call_delay is under way at a time.
local calls = {}
rawset( _G, "luup", { log = function() end, call_delay = function( name, seconds, data )
    lib.check( seconds >= 0 and seconds % 1 == 0 and data == "" )
    calls[#calls + 1] = name .. " " .. seconds
end } )
local function called()
    local words = table.concat( calls, ";" )
    calls = {}
    return words
end
sockets = { fake { GREETING .. ALL .. OK } }
sock = sockets[1]
listener = listen( sockets, { timer = "check" } )
lib.equal( called(), "check 5" )
for _ = 1, 5 do listener:poll() end
lib.equal( called(), "" )
now = now + 4.9 -- a bit early
listener:poll()
lib.equal( called(), "check 5" )
-- Lost: sooner. When it listens again, at the usual interval.
now = now + 3
function sock.receive() return nil, "closed", "" end
listener:poll()
lib.equal( called(), "check 1" )
now = now + 1
listener:poll()
lib.equal( called(), "check 2" )
sockets[1] = fake { GREETING .. ALL .. OK }
now = now + 2
listener:poll()
lib.check( listener:is_listening() )
lib.equal( called(), "check 5" )
-- The clock is set back: the timer is still under way.
now = now - 1000
listener:poll()
lib.equal( called(), "" )
listener:close()
now = now + 1000
listener:poll()
lib.equal( called(), "" )
-- Arrivals without end: the rest is left for the next poll, which the timer causes.
local endless = fake {}
local count = 0
listener = listen( { fake { GREETING .. ALL .. OK } }, { timer = "check", on_incoming = function() count = count + 1 end } )
called()
listener.transport.sock = endless
function endless.receive()
    now = now + 0.01
    return string.rep( "INCO a p:1 / -\n", 600 ):sub( 1, 8192 - 8192 % 15 )
end
lib.equal( listener:poll(), true )
lib.check( count > 1000 and count < 4000, count )
lib.equal( called(), "check 0" )
listener:close()
-- A callback that takes long: the arrivals behind it are left, too.
sock = fake { GREETING .. ALL .. OK, "INCO a p:1 / -\nINCO b p:1 / -\nINCO c p:1 / -\nINCO d p:1 / -\n" }
listener = listen( { sock }, { timer = "check", on_incoming = function( _, arrival )
    events[#events + 1] = arrival.id
    now = now + 0.03
end } )
lib.equal( called(), "check 5" )
lib.equal( listener:poll(), true )
lib.equal( took() .. called(), "a;bcheck 0" )
lib.equal( listener:poll(), true )
lib.equal( listener:poll(), false )
lib.equal( took(), "c;d" )
listener:close()
rawset( _G, "luup", nil )
socket.gettime = real_gettime

lib.no_new_globals()
print "ok"
