-- The client libraries without a daemon: messages split at every place, the line of CONN, and servers that are not the
-- proxy.
--
-- usage: lua5.1 client_pieces.lua, in this directory

local lib = require "lib"
local socket = require "socket"
local fakes = require "fakes"
local Framing = require "L_SockProxyFraming"
local Transport = require "L_SockProxyTransport"
local Options = require "L_SockProxyOptions"
local proxy = require "L_SockProxyClient"

local fake, sent_bytes = fakes.socket, fakes.sent_bytes
-- Each call waits for its outcome.
proxy.defaults.timeout, proxy.defaults.direct = 5, false

-- Returns all messages in these bytes as one string.
local function read( framing, pieces, chunk )
    local transport = Transport.new( fake( pieces, "closed" ), chunk )
    local got = {}
    while true do
        local _, why = transport:fill()
        while transport.have > 0 do
            local verb, body, detail = Framing.readers[framing]( transport )
            if not verb then
                lib.check( not body, body )
                break
            end
            got[#got + 1] = verb .. ( detail and "(" .. detail .. ")" or "" ) .. "[" .. body .. "]"
        end
        if why == "closed" then return table.concat( got ) end
    end
end

local mesg = "TEXT 0\nTEXT 5\nhelloBINA 3\n\0\n\255PING 1\np" .. "DGRM 2 [fe80::1]:1900\nhiHEAD 4\na\r\n\rCLOS 1000 3\nbye"
local messages = "TEXT[]TEXT[hello]BINA[\0\n\255]PING[p]DGRM([fe80::1]:1900)[hi]HEAD[a\r\n\r]CLOS(1000)[bye]"
local line, lines = "one\n\n{\"a\": 2}\nthree\n", "TEXT[one]TEXT[]TEXT[{\"a\": 2}]TEXT[three]"

-- In two pieces, split at every place; byte by byte; and in chunks of every size.
for _, case in ipairs { { "MESG", mesg, messages }, { "LINE", line, lines } } do
    local framing, bytes, expected = case[1], case[2], case[3]
    for at = 0, #bytes do
        lib.equal( read( framing, { bytes:sub( 1, at ), bytes:sub( at + 1 ) } ), expected )
    end
    local single = {}
    for at = 1, #bytes do single[at] = bytes:sub( at, at ) end
    lib.equal( read( framing, single ), expected )
    for chunk = 1, #bytes do lib.equal( read( framing, { bytes }, chunk ), expected ) end
end
lib.equal( read( "RAW", { "a\n", "b" } ), "BINA[a\n]BINA[b]" )

-- Nagle's algorithm is off where the socket can be told so.
local set, settable = {}, fake {}
function settable.setoption( _, name, value ) set[#set + 1] = name .. " " .. tostring( value ) end
Transport.new( settable )
lib.equal( table.concat( set ), "tcp-nodelay true" )

-- A long message in small pieces, and a short one in the piece that ends it.
local long = string.rep( "0123456789", 10000 )
local pieces = {}
for at = 1, #long, 997 do pieces[#pieces + 1] = long:sub( at, at + 996 ) end
table.insert( pieces, 1, "BINA " .. #long .. "\n" )
pieces[#pieces] = pieces[#pieces] .. "TEXT 2\nok"
lib.equal( read( "MESG", pieces ), "BINA[" .. long .. "]TEXT[ok]" )
-- A read has ended before the line end of a message, and the header that follows its body is shorter than the one before.
local million = string.rep( "x", 1000000 )
lib.equal( read( "MESG", { "TEXT 1000000", "\n" .. million .. "CLOS 1000 0\n" } ), "TEXT[" .. million .. "]CLOS(1000)[]" )

-- Bytes that are not a message.
for _, bytes in ipairs { "hello\n", "TEXT\n", "TEXT -1\n", "TEXT 1 2\n", "CLOS 1\n", "text 1\na", string.rep( "x", 64 ) } do
    local transport = Transport.new( fake { bytes } )
    transport:fill()
    local verb, why = Framing.readers.MESG( transport )
    lib.check( verb == nil and why, bytes )
end

-- Sending in pieces of every size: no byte is sent twice or left out.
for room = 1, 9 do
    local sock = fake( {}, nil, room )
    local transport = Transport.new( sock )
    transport:push( "first" )
    transport:flush()
    transport:push( "second" )
    while transport:queued() > 0 do transport:flush() end
    lib.equal( sent_bytes( sock ), "firstsecond" )
    lib.equal( transport:flush(), true )
end

-- The line of CONN.
local function command( target, options ) return ( Options.command( target, options ) ) end
lib.equal( command( "1.2.3.4:5", { RTIM = 0, BLKS = 100, other = 1 } ), "CONN 1.2.3.4:5 BLKS=100 RTIM=0" )
lib.equal( command( "ws://h/?a=%20,b", { notify = { device = 7, service = "urn:x", action = "A" } } ),
    "CONN ws://h/?a=%20,b NTFY=7/urn:x/A" )
lib.equal( command( "wss://h/", { notify = { device = "7", service = "s", action = "A", pid = "secret-1" }, KEEP = 300 } ),
    "CONN wss://h/ KEEP=300 NTFY=7/s/A/secret-1" )
lib.equal( command( "wss://h/", { SUBP = { "a,b", "c" }, PINS = "sha256/00, sha256/11", DEFL = true, MASK = false } ),
    "CONN wss://h/ DEFL=on MASK=off PINS=sha256/00,sha256/11 SUBP=a%2cb,c" )
lib.equal( command( "ws://h/", { HDRS = { "X-A: 1, 2", ["X-B"] = "c d" }, AUTH = "u:p ss%\n" } ),
    "CONN ws://h/ AUTH=u:p%20ss%25%0a HDRS=X-A:1%2c%202 HDRS=X-B:c%20d" )
lib.equal( command( "ws://h/", { LENI = { "utf8", "mask" } } ), "CONN ws://h/ LENI=utf8,mask" )
lib.equal( command( "ws://h/", { LENI = "utf8, mask" } ), "CONN ws://h/ LENI=utf8,mask" )
lib.equal( command( "ws://h/", { LENI = false } ), "CONN ws://h/" )
lib.equal( command( "ws://h/", { HDRS = "X-A:1" } ), "CONN ws://h/ HDRS=X-A:1" )
lib.equal( command( "239.255.255.250:1900", { PRTO = "udp", BIND = 1900, MTTL = 4, JOIN = { "239.255.255.250@10.0.0.1", "224.0.0.251" } } ),
    "CONN 239.255.255.250:1900 BIND=1900 JOIN=239.255.255.250%4010.0.0.1,224.0.0.251 MTTL=4 PRTO=udp" )
lib.equal( command( "[ff02::fb]:5353", { PRTO = "udp", BIND = "[fe80::1]:5353", JOIN = "ff02::fb@fe80::1" } ),
    "CONN [ff02::fb]:5353 BIND=%5bfe80::1%5d:5353 JOIN=ff02::fb%40fe80::1 PRTO=udp" )
-- A value cannot add a second command.
lib.equal( command( "ws://h/\nSTOP", {} ), nil )
lib.equal( command( "ws://h/ x", {} ), nil )
lib.equal( command( "h:1", { RTIM = "1\nSTOP" } ), nil )
lib.equal( command( "h:1", { notify = { device = 1, service = "s", action = "a\nSTOP" } } ), nil )
lib.equal( command( "h:1", { notify = { device = 1, service = "s/t", action = "a" } } ), nil )
-- Without one of these fields, or with a misspelt one, no notification would reach the plugin.
for notify, expected in pairs {
    [{ service = "s", action = "a" }] = "no device", [{ device = 1, action = "a" }] = "no service",
    [{ device = 1, service = "s", action = "" }] = "no action", [{ device = 1, service = "s", actoin = "a" }] = "no such field: actoin",
} do lib.equal( select( 2, Options.command( "h:1", { notify = notify } ) ), "notify: " .. expected ) end
for _, option in ipairs { "UAGT", "ORIG", "SUBP", "HDRS", "CAFL", "SNIH", "FRAM", "CTRL" } do
    lib.check( not command( "ws://h/", { [option] = "a\r\nSTOP" } ):find( "[\r\n]" ), option )
end

-- A server that is not the proxy, a silent one, and the Lua daemon, which is recognised before CONN.
local function against( replies, options, ending )
    local sock = fake( replies, ending )
    options.connect = function( host, port )
        lib.equal( host .. ":" .. port, "10.0.0.1:99" )
        return sock
    end
    options.host, options.port = "10.0.0.1", 99
    local target = options.target or "ws://h/"
    options.target = nil
    local conn, why = proxy.open( target, options )
    if not conn then lib.check( sock.closed, "the socket is left open" ) end
    return conn or why, sock
end
local GREETING = "OK TOGGLEDBITS-SOCKPROXY 1 a1\n"
local ALL = "OK CAPA BLKS RTIM NTFY CONN UDP V6 TLS WS MESG LINE DEFL KEEP EVNT HEAL JSON LENI MCST\n"
lib.equal( against( { "220 mail\r\n" }, {} ), "the program at 10.0.0.1:99 is not sockproxyd" )
lib.equal( against( { "ERR Access denied\n" }, {} ), "the proxy at 10.0.0.1:99 replies: ERR Access denied" )
lib.like( against( {}, { patience = 0.05 } ), "does not greet: timeout$" )
lib.like( against( {}, {}, "closed" ), "does not greet: closed$" )
-- Without a wait, too: no timer would tell the outcome later.
local mute = assert( socket.bind( "127.0.0.1", 0 ) )
for _ = 1, 20 do
    local settings = { port = select( 2, mute:getsockname() ), timeout = 0, patience = 0.02, direct = false }
    lib.like( select( 2, proxy.open( "ws://h/", settings ) ), "does not greet: timeout$" )
end
mute:close()
local old = "the proxy at 10.0.0.1:99 is the Lua daemon or too old: it lacks "
lib.equal( against( { GREETING, "OK CAPA BLKS RTIM NTFY CONN UDP\n" }, {} ), old .. "WS MESG" )
lib.equal( against( { GREETING, "ERR INVALID COMMAND\n" }, { KEEP = 1, notify = { device = 1, service = "s", action = "a", pid = "12345678" } } ),
    old .. "WS MESG KEEP" )
lib.equal( against( { GREETING, "OK CAPA BLKS RTIM NTFY CONN UDP WS MESG\n" }, { LENI = "utf8" } ), old .. "LENI" )
local why, sock = against( { GREETING }, { target = "wss://h/", DEFL = true, timeout = 0, notify = { device = 1, service = "s", action = "a" } }, "closed" )
lib.equal( why, old .. "WS TLS MESG EVNT DEFL" )
lib.equal( sent_bytes( sock ), "CAPA\n" )
-- The Lua daemon would ignore the word and connect without TLS.
lib.equal( against( { GREETING, "OK CAPA BLKS RTIM NTFY CONN UDP\n" }, { target = "h:1", PRTO = "TLS" } ), old .. "TLS" )
lib.equal( against( { GREETING, "OK CAPA BLKS RTIM NTFY CONN UDP\n" }, { target = "[::1]:80", FRAM = "LINE" } ), old .. "LINE V6" )
lib.equal( against( { GREETING, "OK CAPA BLKS RTIM NTFY CONN UDP\n" }, { target = "224.0.0.1:1", PRTO = "udp", BIND = 1 } ), old .. "MCST" )
-- Leniency, where the proxy knows it. The libraries whose originals check less ask for it, unless the plugin says otherwise.
local function lenient_command( words, options )
    local _, sock_of = against( { GREETING, "OK CAPA " .. words .. "\n", "OK CONN a1\n" }, options )
    return ( sent_bytes( sock_of ):gsub( "^CAPA\n", "" ) )
end
lib.equal( lenient_command( "WS MESG LENI", { lenient = "utf8" } ), "CONN ws://h/ LENI=utf8\n" )
lib.equal( lenient_command( "WS MESG", { lenient = "utf8" } ), "CONN ws://h/\n" )
lib.equal( lenient_command( "WS MESG LENI", { lenient = "utf8", LENI = "mask" } ), "CONN ws://h/ LENI=mask\n" )
lib.equal( lenient_command( "WS MESG LENI", { lenient = "utf8", LENI = false } ), "CONN ws://h/ LENI=utf8\n" )
lib.equal( lenient_command( "WS MESG LENI", {} ), "CONN ws://h/\n" )
lib.equal( lenient_command( "TLS LENI", { target = "h:1", PRTO = "tls", lenient = "utf8" } ), "CONN h:1 PRTO=tls\n" )
local facades = {
    ["utf8,mask"] = function( options )
        options.timeout = 5
        require( "L_SockProxy_LuWS" ).wsopen( "ws://h/", function() end, options )
    end,
    ["utf8,mask "] = function( options )
        require( "L_SockProxyTurbo" ).websocket.WebSocketClient( "ws://h/", options )
    end,
    utf8 = function( options )
        local vws = require "L_SockProxyVeraWebSockets"
        vws.connect( vws.create( "ws://h/", {}, {}, false, options ) )
    end,
}
for words, open in pairs( facades ) do
    local function asked( capabilities, leniency )
        local sock_of = fake { GREETING, "OK CAPA WS MESG" .. capabilities .. "\n", "OK CONN a1\n" }
        open { connect = function() return sock_of end, LENI = leniency }
        proxy.handle( {} )
        return sent_bytes( sock_of ):match( "\nCONN ws://h/[^\n]*\n" ):match( " LENI=(%S+)" )
    end
    lib.equal( asked " LENI", words:match "%S+" )
    lib.equal( asked "", nil )
    lib.equal( asked( " LENI", false ), nil )
    lib.equal( asked( " LENI", "mask" ), "mask" )
end
-- The Lua daemon is accepted for what it supports, and is not asked for CAPA then.
local conn
conn, sock = against( { GREETING .. "OK CONN a1\n" }, { target = "h:1", NTFY = "1/s/a" } )
lib.equal( conn:is_open(), true )
lib.equal( sent_bytes( sock ), "CONN h:1 NTFY=1/s/a\n" )
lib.equal( conn.pid, "a1" )

-- The reply to CONN, split at every place, with messages and the end behind it; with a wait, and polled.
local replies = GREETING .. ALL .. "OK CONN a1\nTEXT 2\nhiCLOS 1000 3\nbye"
for at = 0, #replies do
    for _, timeout in ipairs { 5, 0 } do
        local received, seen = {}, nil
        local function record( word ) return function( _, ... ) received[#received + 1] = word .. table.concat( { ... }, " " ) end end
        conn = against( { replies:sub( 1, at ), replies:sub( at + 1 ) }, {
            timeout = timeout, on_open = record "open ", on_message = record "message ", on_close = record "close ",
            on_seen = function( _, count ) seen = count end,
        }, "closed" )
        lib.check( type( conn ) == "table", conn )
        for _ = 1, 10 do conn:poll() end
        lib.equal( table.concat( received, ";" ),
            ( timeout == 0 and "open ;" or "" ) .. "message hi TEXT;close 1000 bye" )
        lib.equal( seen, 2 )
        lib.equal( select( 2, conn:poll() ), "bye" )
    end
end

-- CONN is refused, split at every place. Polled, only on_error is called.
local refused = GREETING .. ALL .. "ERR CONN BAD_HTTP_STATUS 403 Forbidden\n"
for at = 0, #refused do
    lib.equal( against( { refused:sub( 1, at ), refused:sub( at + 1 ) }, {}, "closed" ), "BAD_HTTP_STATUS 403 Forbidden" )
    local errors = {}
    conn = against( { refused:sub( 1, at ), refused:sub( at + 1 ) }, { timeout = 0,
        on_error = function( _, words ) errors[#errors + 1] = words end,
        on_close = function() error "the connection was never open" end }, "closed" )
    for _ = 1, 5 do conn:poll() end
    lib.equal( table.concat( errors, ";" ), "BAD_HTTP_STATUS 403 Forbidden" )
end

-- CONN gets no reply in time.
local real_gettime, now = socket.gettime, 0
socket.gettime = function()
    now = now + 1
    return now
end
lib.equal( against( { GREETING, ALL }, { timeout = 5, patience = 100 } ), "timeout" )
-- A clock that is set back by decades does not extend the wait by decades.
socket.gettime = function()
    now = now - 1000000000
    return now
end
local longest, real_sleep = 0, socket.sleep
function socket.sleep( seconds ) longest = math.max( longest, seconds ) end
local slow = fake { GREETING, ALL, "OK CO", "NN a1\n" }
local receive, pauses = slow.receive, 0
function slow.receive( ... )
    pauses = pauses + 1
    if pauses % 2 == 1 then return nil, "timeout", "" end
    return receive( ... )
end
conn = proxy.open( "ws://h/", { connect = function() return slow end } )
lib.equal( conn:is_open(), true )
lib.check( longest > 0 and longest <= 5, longest )
socket.gettime, socket.sleep = real_gettime, real_sleep

-- A callback that fails is logged, and the messages behind it are delivered. No callback follows one that closes. A callback
-- may poll.
local logged, received = {}, {}
conn = against( { GREETING .. ALL .. "OK CONN a1\n", "TEXT 1\naTEXT 1\nbTEXT 1\ncTEXT 1\nd" }, {
    log = function( words ) logged[#logged + 1] = words end,
    on_message = function( self, text )
        received[#received + 1] = text
        lib.equal( self:poll(), false )
        if text == "a" then error "oops" end
        if text == "c" then self:close() end
    end,
    on_close = function() error "the plugin has closed it itself" end,
} )
lib.equal( conn:poll(), nil )
lib.equal( table.concat( received ), "abc" )
lib.equal( #logged, 1 )
lib.like( logged[1], "^SockProxyClient: on_message: .*oops" )

-- A remote that sends without end: the rest is left for the next call.
local endless = fake {}
local flood = "TEXT 8192\n" .. string.rep( "x", 8192 )
local opening = { GREETING, ALL, "OK CONN a1\n" }
function endless.receive( _, wanted )
    if #opening > 0 then return nil, "timeout", table.remove( opening, 1 ) end
    lib.equal( wanted, 8192 )
    local piece = flood:sub( 1, wanted )
    flood = flood:sub( wanted + 1 ) .. piece
    return piece
end
conn = proxy.open( "ws://h/", { connect = function() return endless end } )
local real, turns = socket.gettime, 0
function socket.gettime()
    turns = turns + 1
    return real() + turns / 1000
end
local more, bytes = conn:poll()
socket.gettime = real
lib.equal( more, true )
lib.check( bytes >= 8192 and bytes <= 51 * 8192, bytes )

-- The messages and closes that a plugin may send.
conn, sock = against( { GREETING, ALL, "OK CONN a1\n" }, {} )
lib.equal( conn:ping( string.rep( "p", 126 ) ), nil )
lib.equal( conn:close( 1006 ), nil )
lib.equal( conn:close( 1000, string.rep( "r", 124 ) ), nil )
lib.equal( conn:text( "t" ) and conn:binary( "" ) and conn:send( "FRAG", "f" ) and conn:datagram( "d", "h:1" ), true )
lib.equal( conn:datagram( "d", "h:1\nSTOP" ), nil )
lib.equal( conn:close( 4000, "bye" ), true )
lib.equal( conn:close(), true )
lib.like( sent_bytes( sock ), "\nTEXT 1\ntBINA 0\nFRAG 1\nfDGRM 1 h:1\ndCLOS 4000 3\nbye$" )
lib.equal( select( 2, conn:text( "late" ) ), "closed" )
-- The socket waits until the proxy has closed, and the next call of the module closes it.
lib.equal( sock.closed, false )
function sock.receive() return nil, "closed", "CLOS 4000 3\nbye" end
proxy.handle( {} )
lib.equal( sock.closed, true )
conn = against( { GREETING, ALL, "OK CONN a1\n" }, { FRAM = "LINE" } )
lib.equal( conn:text( "a\nb" ), nil )
lib.equal( conn:ping(), nil )
lib.equal( conn:text( "a" ), true )

-- Bytes that the remote does not read are queued up to a limit, and sent later, in order.
local full = fake( { GREETING, ALL, "OK CONN a1\n" } )
conn = proxy.open( "ws://h/", { connect = function() return full end } )
local send = full.send
function full.send() return nil, "timeout", 0 end
lib.equal( conn:text( string.rep( "x", 1024 * 1024 ) ), true )
lib.equal( conn:is_queued(), true )
lib.equal( select( 2, conn:text( "more" ) ), "send queue is full" )
full.send, full.taken = send, {}
conn:poll()
lib.equal( sent_bytes( full ), "TEXT 1048576\n" .. string.rep( "x", 1024 * 1024 ) )
lib.equal( conn:is_queued(), false )

-- A proxy that hangs does not enforce RTIM: the library asks it soon after that time. By default it asks after five minutes.
conn = against( { GREETING, ALL, "OK CONN 1\n" }, { RTIM = 2000 } )
lib.equal( conn.look_interval, 7 )
conn = against( { GREETING, ALL, "OK CONN 1\n" }, { RTIM = 0 } )
lib.equal( conn.look_interval, 300 )
-- Kinds of messages that there are not, or that are not for this function.
for _, kind in ipairs { "TXT", "CLOS", "DGRM", "HEAD" } do
    lib.equal( select( 2, conn:send( kind, "a" ) ), "no such kind of message: " .. kind )
end

-- A proxy that ends before it replies to CONN: the connection is made without it.
local device = assert( socket.bind( "127.0.0.1", 0 ) )
local said = {}
conn = lib.check( proxy.open( "127.0.0.1:" .. select( 2, device:getsockname() ), {
    host = "10.0.0.1", port = 99, direct = true, log = function( words ) said[#said + 1] = words end,
    connect = function( host, port )
        if port == 99 then return fake( { GREETING }, "closed" ) end
        return socket.connect( host, port )
    end,
} ) )
lib.equal( conn.direct, true )
lib.equal( table.concat( said ), "SockProxyClient: the proxy has closed the connection; connecting without it" )
conn:close()
-- So it is if the proxy has ended before NTFY: CONN cannot be sent.
local ended = fake( { GREETING }, "closed" )
local send_once = ended.send
function ended:send( ... )
    if #self.taken > 0 then return nil, "closed", 0 end
    return send_once( self, ... )
end
local target = "127.0.0.1:" .. select( 2, device:getsockname() )
conn = lib.check( proxy.open( target, {
    host = "10.0.0.1", port = 99, direct = true, log = function() end, notify = { device = 1, service = "s", action = "a" },
    connect = function( host, port )
        if port == 99 then return ended end
        return socket.connect( host, port )
    end,
} ) )
lib.equal( conn.direct, true )
conn:close()
device:close()
-- "closed" is also the proxy's word for a device that has reset the connection.
conn = against( { GREETING, "ERR CONN closed\n" }, { target = target, direct = true, log = function() lib.check( false, "it logs" ) end } )
lib.equal( conn, "closed" )

-- A name server that does not answer is no proxy that hangs, whose connections would be ended.
local Resolver, Handshake = require "L_SockProxyResolver", require "L_SockProxyHandshake"
local resolve = Resolver.resolve
function Resolver.resolve() return nil, "timeout" end
conn, why = Handshake.dial( { host = "proxy.example", port = 99 }, 0.05 )
lib.equal( conn, nil )
lib.equal( why, "no proxy at proxy.example:99: no address: timeout" )
-- Nor is one whose name took all the time, as with a Luup that polls late.
function Resolver.resolve( _, _, seconds )
    socket.sleep( seconds )
    return "10.0.0.1"
end
local connect_tcp, given = Handshake.connect_tcp, nil
function Handshake.connect_tcp( _, _, seconds )
    given = seconds
    return nil, "connection refused"
end
Handshake.dial( { host = "proxy.example", port = 99 }, 0.05 )
lib.check( given > 0, given )
Resolver.resolve, Handshake.connect_tcp = resolve, connect_tcp

-- KEEP needs a secret, and secret() returns a new one each time.
lib.like( select( 2, proxy.open( "ws://h/", { KEEP = 300 } ) ), "^KEEP needs notify.pid" )
lib.like( select( 2, proxy.open( "ws://h/", { KEEP = 300, notify = { device = 1, service = "s", action = "a", pid = "short" } } ) ), "^KEEP needs notify.pid" )
lib.like( proxy.secret(), "^%x+$" )
lib.equal( #proxy.secret(), 32 )
lib.check( proxy.secret() ~= proxy.secret(), "secret() returns the same value twice" )

-- Kept connections: resumed, gone, and with a gap, where the old one is dropped and a new one opened.
local keep = { KEEP = 300, seen = 7, notify = { device = 1, service = "s", action = "a", pid = "12345678" } }
local CONN = "CONN ws://h/ KEEP=300 PACE=0.1 NTFY=1/s/a/12345678\n"
local ATCH = "CAPA\nATCH 12345678 SEEN=7 CONN=ws://h/\n"
conn, sock = against( { GREETING, ALL, "OK ATCH 12345678\n" }, keep )
lib.equal( sent_bytes( sock ), ATCH )
lib.check( conn.kept and conn.seen == 7 and conn.pid == "12345678" and not conn.gap )
conn, sock = against( { GREETING, ALL, "ERR ATCH No such pid\n", "OK CONN 12345678\n" }, keep )
lib.equal( sent_bytes( sock ), ATCH .. CONN )
lib.check( not conn.kept and conn.seen == 0 and not conn.gap )
conn, sock = against( { GREETING, ALL, "ERR ATCH Gap\n", "OK DROP\n", "OK CONN 12345678\n" }, keep )
lib.equal( sent_bytes( sock ), ATCH .. "DROP 12345678\n" .. CONN )
lib.check( not conn.kept and conn.seen == 0 and conn.gap )
-- The user has changed the address.
conn, sock = against( { GREETING, ALL, "ERR ATCH Other target\n", "OK DROP\n", "OK CONN 12345678\n" }, keep )
lib.equal( sent_bytes( sock ), ATCH .. "DROP 12345678\n" .. CONN )
lib.check( not conn.kept and conn.seen == 0 and not conn.gap )
-- A proxy that does not know the option CONN of ATCH ends the connection. The library attaches without it.
local older = { fake( { GREETING, ALL, "ERR ATCH Invalid option\n" }, "closed" ), fake { GREETING, "OK ATCH 12345678\n" } }
local dialled = 0
keep.connect = function()
    dialled = dialled + 1
    return older[dialled]
end
conn = proxy.open( "ws://h/", keep )
lib.equal( sent_bytes( older[1] ), ATCH )
lib.equal( sent_bytes( older[2] ), "ATCH 12345678 SEEN=7\n" )
lib.check( conn.kept and conn.seen == 7 and older[1].closed and not older[2].closed )
conn:leave()
-- Its kept connection is gone.
older = { fake( { GREETING, ALL, "ERR ATCH Invalid option\n" }, "closed" ),
    fake { GREETING, "ERR ATCH No such pid\n", "OK CONN 12345678\n" } }
dialled = 0
conn = proxy.open( "ws://h/", keep )
lib.equal( sent_bytes( older[2] ), "ATCH 12345678 SEEN=7\n" .. CONN )
lib.check( not conn.kept )
-- The library tries this once.
older = { fake( { GREETING, ALL, "ERR ATCH Invalid option\n" }, "closed" ), fake( { GREETING, "ERR ATCH Invalid option\n" }, "closed" ) }
dialled = 0
lib.equal( proxy.open( "ws://h/", keep ), nil )
lib.equal( dialled, 2 )

-- Luup's timer polls soon after something has come, without notifications. With them it polls every five seconds, and soon only
-- while bytes are queued, since no notification tells that the proxy takes more.
local soonest
rawset( _G, "luup", { openLuup = true, call_delay = function( _, seconds ) soonest = math.min( soonest, seconds ) end } )
for seconds, options in pairs { [0.02] = {}, [5] = { notify = { device = 1, service = "s", action = "a" } } } do
    soonest = math.huge
    conn, sock = against( { GREETING, ALL, "OK CONN a1\n" }, options )
    for _ = 1, 3 do
        sock.pieces[1] = "TEXT 1\na"
        lib.equal( conn:poll(), false )
    end
    lib.equal( conn.seen, 3 )
    lib.equal( soonest, seconds )
    function sock.send() return nil, "timeout", 0 end
    conn:text "queued"
    lib.check( soonest <= 0.2, soonest )
    conn:leave()
end
rawset( _G, "luup", nil )

lib.no_new_globals()
print "ok"
