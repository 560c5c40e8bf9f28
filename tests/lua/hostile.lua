-- Hostile servers and name servers against the client without the proxy: no error of Lua, no call that takes long, no memory that
-- grows without a bound.
--
-- usage: lua5.1 hostile.lua closed=PORT directory=PATH, in this directory; see tests/e2e/websocket/lua_clients.rs

local socket = require "socket"
local lib = require "lib"
local fakes = require "fakes"
local proxy = require "L_SockProxyClient"
local Digest = require "L_SockProxyDigest"
local Direct = require "L_SockProxyDirect"
local Frames = require "L_SockProxyFrames"
local Handshake = require "L_SockProxyHandshake"
local Headers = require "L_SockProxyHeaders"
local Operation = require "L_SockProxyOperation"
local Resolver = require "L_SockProxyResolver"
local Transport = require "L_SockProxyTransport"
local Upgrade = require "L_SockProxyUpgrade"

local at = lib.arguments()
-- Seconds. What a call may take of the processor, with a margin for a busy machine; and how long an outcome may take.
local LIMIT, OUTCOME = 0.25, 30
proxy.defaults.port, proxy.defaults.log = at.closed, function() end

local real_gettime = socket.gettime
-- Seconds that a slow plugin is said to have taken.
local ahead = 0
function socket.gettime() return real_gettime() + ahead end

-- Returns the results of a call that must not take long.
local function brief( call, ... )
    local began = os.clock()
    local results = { call( ... ) }
    lib.check( os.clock() - began <= LIMIT, "a call takes " .. os.clock() - began )
    return results[1], results[2]
end

-- KiB that Lua uses.
local function memory()
    collectgarbage()
    collectgarbage()
    return collectgarbage "count"
end

local server = assert( socket.bind( "127.0.0.1", 0 ) )
server:settimeout( 0 )
local address = "127.0.0.1:" .. select( 2, server:getsockname() )

-- Polls, and has the server do something before each poll, until `done()` is true.
local function poll_until( conn, done, step )
    local stop = real_gettime() + OUTCOME
    while not done() do
        if step then step() end
        brief( conn.poll, conn )
        lib.check( real_gettime() < stop, "no outcome" )
        if not step then socket.select( nil, nil, 0.001 ) end
    end
end

-- Connects to the server. Returns the connection, the server's socket, and a table with the events.
local function open( target, options )
    local events = {}
    for _, name in ipairs { "open", "error", "close" } do
        options["on_" .. name] = function( _, first, second )
            events[name] = tostring( first ) .. ( second and " " .. second or "" )
        end
    end
    local conn = lib.check( brief( proxy.open, target, options ) )
    local peer
    poll_until( conn, function()
        peer = server:accept()
        return peer
    end )
    return conn, peer, events
end

-- Opens a WebSocket. Returns as open().
local function open_websocket( options )
    local conn, peer, events = open( "ws://" .. address .. "/", options )
    peer:settimeout( OUTCOME )
    local key
    repeat
        local line = assert( peer:receive( "*l" ) )
        key = line:match( "^Sec%-WebSocket%-Key: (.*)" ) or key
    until line == ""
    peer:send( "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        .. Digest.base64( Digest.sha1( key .. "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" ) ) .. "\r\n\r\n" )
    poll_until( conn, function() return events.open end )
    peer:settimeout( 0 )
    return conn, peer, events
end

-- Returns a step that sends these bytes again and again, as far as the client reads them.
local function sender( peer, bytes )
    local rest = ""
    return function()
        for _ = 1, 16 do
            if rest == "" then rest = bytes end
            local last, why, part = peer:send( rest )
            rest = rest:sub( ( last or part or 0 ) + 1 )
            if why then return end
        end
    end
end

-- A server that does not accept, since its queue is full. connect(2) is not asked again before there is an outcome: what it says
-- then is the system's, in words of its own.
local full = assert( socket.bind( "127.0.0.1", 0, 0 ) )
local crowd, calls = {}, 0
for index = 1, 4 do
    crowd[index] = socket.tcp()
    crowd[index]:settimeout( 0 )
    crowd[index]:connect( "127.0.0.1", ( select( 2, full:getsockname() ) ) )
end
-- LuaSocket's classes of a socket before the first call and behind it.
local classes = { getmetatable( socket.tcp() ).__index, getmetatable( crowd[1] ).__index }
local real_connect = classes[1].connect
for _, methods in ipairs( classes ) do
    function methods.connect( ... )
        calls = calls + 1
        return real_connect( ... )
    end
end
local connecting, done = Operation.start( function()
    return Handshake.connect_tcp( "127.0.0.1", ( select( 2, full:getsockname() ) ), 0.1 )
end ), nil
local outcome
repeat
    local sock, why
    done, sock, why = connecting:step()
    outcome = sock or why
    socket.select( nil, nil, 0.005 )
until done
for _, methods in ipairs( classes ) do methods.connect = real_connect end
lib.equal( outcome, "timeout" )
lib.equal( calls, 1 )

-- Heads without end: of lines, of one line, of blank lines, of interim responses.
for start, endless in pairs {
    ["HTTP/1.1 101 X\r\n"] = string.rep( "A: b\r\n", 1000 ), ["HTTP/1.1 200 "] = string.rep( "x", 8192 ),
    ["HTTP/1.1 101 Y\r\n"] = string.rep( " \n", 4096 ), [""] = "HTTP/1.1 100 Continue\r\n\r\n",
} do
    local conn, peer, events = open( "ws://" .. address .. "/", {} )
    peer:settimeout( 0 )
    peer:send( start )
    poll_until( conn, function() return events.error end, sender( peer, endless ) )
    lib.like( events.error, "^PARSE_ERROR_HEADERS header block over 8192 bytes" )
    peer:close()
end
-- A head that comes byte by byte and never ends.
local conn, peer, events = open( "ws://" .. address .. "/", { RQTM = 300 } )
peer:send( "HTTP/1.1 101 X\r\nA: " )
poll_until( conn, function() return events.error end, function()
    peer:send( "x" )
    socket.select( nil, nil, 0.005 )
end )
lib.equal( events.error, "REQUEST_TIMEOUT timeout" )
peer:close()

-- Texts for which a careless pattern takes quadratic time.
local began = os.clock()
for _ = 1, 10 do
    Upgrade.response( "HTTP/1.1 101 X\r\nA: a" .. string.rep( " ", 7900 ) .. "b\r\n\r\n", "key" )
    lib.equal( Upgrade.parse( "ws://[:" .. string.rep( "a", 8000 ) .. "/" ), nil )
end
lib.check( os.clock() - began < 0.5, "heads take " .. os.clock() - began )
for _, line in ipairs { "A: a" .. string.rep( " ", 30000 ) .. "b", string.rep( "a", 30000 ) } do
    local request = "GET / HTTP/1.1\r\n" .. line .. "\r\nHost: h \r\n\r\n"
    lib.equal( brief( Headers.new, request ):get "Host", "h " )
    local arrival
    brief( proxy.handle, { [proxy.listen {
        port = 1, headers = true, on_incoming = function( _, incoming ) arrival = incoming end,
        proxy = { connect = function() return fakes.socket {
            "OK TOGGLEDBITS-SOCKPROXY 1 a1\nOK CAPA WS LSTN\nOK LSTN a1\n",
            "INCO 2a 192.168.1.9:51000 / - " .. #request .. "\n" .. request,
        } end },
    }] = true } )
    lib.equal( arrival.headers.host, "h" )
end
local received
conn, peer, events = open_websocket { FRAM = "LINE", on_message = function( _, text ) received = text end }
poll_until( conn, function() return received end, sender( peer, Frames.encode( 1, string.rep( "\n", 65534 ) .. "x\n" ) ) )
lib.equal( received, string.rep( " ", 65534 ) .. "x" )
peer:close()

-- A relative redirect from a long path.
conn, peer, events = open( "ws://" .. address .. "/" .. string.rep( "a", 30000 ) .. "/", {} )
peer:send( "HTTP/1.1 302 Found\r\nLocation: there\r\n\r\n" )
local following
poll_until( conn, function()
    following = server:accept()
    return following
end )
following:close()
peer:close()
conn:close()

-- A redirect to another port of the host: what the plugin has for the first server is not for that one.
conn, peer, events = open( "ws://" .. address .. "/", { HDRS = "X-Token: secret", AUTH = "me:secret" } )
local other = assert( socket.bind( "127.0.0.1", 0 ) )
other:settimeout( 0 )
peer:send( "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:" .. select( 2, other:getsockname() ) .. "/there\r\n\r\n" )
poll_until( conn, function()
    following = other:accept()
    return following
end )
following:settimeout( 0 )
local redirected = ""
poll_until( conn, function()
    local all, _, part = following:receive( 10000 )
    redirected = redirected .. ( all or part or "" )
    return redirected:find( "\r\n\r\n", 1, true )
end )
lib.like( redirected, "^GET /there HTTP/1.1\r\n" )
lib.check( not redirected:find "secret" and not redirected:find "Authorization", redirected )
following:close()
other:close()
peer:close()
conn:close()

-- Fragments without end, empty and of one byte, within a limit and beyond it.
conn, peer, events = open_websocket { MAXM = 100000 }
peer:send( Frames.encode( 2, "", false ) )
local before, sent = memory(), 0
local empty = sender( peer, string.rep( Frames.encode( 0, "", false ), 1000 ) )
poll_until( conn, function() return sent > 100 end, function()
    empty()
    sent = sent + 1
end )
lib.check( memory() - before < 300, "empty fragments take memory" )
peer:settimeout( OUTCOME )
local single, most = {}, 0
for index = 1, 1000 do single[index] = Frames.encode( 0, string.char( index % 256 ), false ) end
single = table.concat( single )
-- The bytes of a frame that the last step has sent in part.
conn, peer, events = open_websocket { MAXM = 100000 }
peer:send( Frames.encode( 2, "", false ) )
local ones, round = sender( peer, single ), 0
poll_until( conn, function() return events.close end, function()
    ones()
    round = round + 1
    if round % 20 == 0 then most = math.max( most, memory() - before ) end
end )
lib.equal( events.close, "1009 the message is too long" )
lib.check( most < 700, "100 kB in fragments take " .. most )
peer:close()

-- Single bytes: of a message, and of everything before it. `distinct` pieces are no strings that Lua has already.
local bytewise, count = fakes.socket {}, 0
function bytewise.receive()
    count = count + 1
    return nil, "timeout", string.char( count % 256, math.floor( count / 256 ) % 256 )
end
local transport = Transport.new( bytewise )
before = memory()
for _ = 1, 100000 do transport:fill() end
lib.check( memory() - before < 1000, "200 kB in pieces take " .. memory() - before )
lib.equal( transport:bytes( 200000 ):sub( 3, 6 ), "\2\0\3\0" )

-- Lengths beyond all memory, alone and behind a fragment, where a sum is beyond Lua's integers.
for _, start in ipairs { "", Frames.encode( 2, "a", false ) } do
    for _, length in ipairs { "\64\0\0\0\0\0\0\0", "\127\255\255\255\255\255\255\255" } do
        conn, peer, events = open_websocket {}
        peer:send( start .. string.char( start == "" and 130 or 128, 127 ) .. length )
        poll_until( conn, function() return events.close end )
        lib.equal( events.close, "1009 the message is too long" )
        peer:close()
    end
end

-- A server that sends pings and does not read. Then it reads: the last ping is answered.
conn, peer, events = open_websocket {}
before, most = memory(), 0
local pings, queued = sender( peer, string.rep( Frames.encode( 9, string.rep( "p", 125 ) ), 100 ) ), 0
for index = 1, 4000 do
    pings()
    brief( conn.poll, conn )
    if conn:is_queued() then queued = queued + 1 end
    if index % 500 == 0 then most = math.max( most, memory() - before ) end
    if queued > 300 then break end
end
lib.check( queued > 300, "the server's side takes all pongs" )
lib.check( most < 300, "pongs take " .. most )
peer:settimeout( 0 )
poll_until( conn, function() return not conn:is_queued() end, function() peer:receive( 65536 ) end )
conn:text( "still here" )
lib.equal( events.close, nil )
conn:close()
peer:close()

-- A plugin that is slower than the remote: the rest stays in the kernel.
local function slow() ahead = ahead + 1 end
conn, peer, events = open_websocket { on_message = slow }
local messages = sender( peer, string.rep( Frames.encode( 1, "x" ), 1000 ) )
for _ = 1, 200 do
    messages()
    brief( conn.poll, conn )
end
lib.equal( events.close, nil )
lib.check( conn.channel.transport.have <= 8192, conn.channel.transport.have )
conn:close()
peer:close()
local device = socket.udp()
device:setsockname( "127.0.0.1", 0 )
conn = proxy.open( "127.0.0.1:" .. select( 2, device:getsockname() ), { PRTO = "udp", FRAM = "MESG", on_message = slow } )
lib.check( conn:binary( "hello" ) )
local _, from, port = device:receivefrom()
for _ = 1, 200 do
    for _ = 1, 80 do device:sendto( "flood", from, port ) end
    brief( conn.poll, conn )
end
lib.check( #conn.channel.received <= 64, #conn.channel.received )
-- Empty ones do not hide those behind them.
conn.options.on_message = function( _, datagram ) received = datagram end
poll_until( conn, function() return received == "behind" end, function()
    for _ = 1, 20 do device:sendto( "", from, port ) end
    device:sendto( "behind", from, port )
end )
lib.check( conn.read > 0, conn.read )
-- No address: LuaSocket 2 raises an error.
for _, to in ipairs { "device.example:1", "999.1.1.1:1", "[::1]:1", "nothing" } do
    lib.like( select( 2, brief( conn.datagram, conn, "d", to ) ), "^no address" )
end
conn:close()

-- Resets and ends: in a message, while the client sends, right behind the handshake.
for _, ending in ipairs { "reset", "close" } do
    for _, behind in ipairs { "", Frames.encode( 2, "abcdef" ):sub( 1, 4 ), Frames.encode( 9, "p" ) } do
        conn, peer, events = open_websocket {}
        local block = string.rep( "x", 65000 )
        for _ = 1, 10 do brief( conn.binary, conn, block ) end
        peer:send( behind )
        if ending == "reset" then pcall( peer.setoption, peer, "linger", { on = true, timeout = 0 } ) end
        peer:close()
        local ok, why = true, nil
        for _ = 1, 50 do
            ok, why = brief( conn.text, conn, "x" )
            if not ok then break end
        end
        lib.check( ok or type( why ) == "string", why )
        poll_until( conn, function() return events.close end )
        lib.like( events.close, "^1006 " )
        lib.equal( select( 2, brief( conn.text, conn, "x" ) ), "closed" )
    end
end

-- A socket that raises errors ends its connection.
local faulty = fakes.socket {}
conn = proxy.open( "h:7", { connect = function( _, port_of )
    if port_of ~= 7 then return nil, "no proxy" end
    return faulty
end, on_close = function( _, _, why ) received = why end } )
function faulty.receive() error "no descriptors left" end
lib.like( select( 2, brief( conn.poll, conn ) ), "no descriptors left" )
lib.like( received, "no descriptors left" )
lib.like( select( 2, conn:poll() ), "no descriptors left" )

-- What is no TLS, and a TLS server that does not read.
local has_ssl, ssl = pcall( require, "ssl" )
if has_ssl then
    for _, garbage in ipairs { "HTTP/1.0 400 Bad Request\r\n\r\n", string.rep( "\0", 1000 ), "\22\3\3\64\0", "\21\3\3\0\2\2\40", "" } do
        for _, ends in ipairs { true, false } do
            conn, peer, events = open( address, { PRTO = "tls", VRFY = "none", CTIM = 400 } )
            peer:send( garbage )
            if ends then peer:close() end
            poll_until( conn, function() return events.error end )
            lib.like( events.error, "SSL_ERROR" == events.error:match "^SSL_ERROR" and "^SSL_ERROR ." or "timeout" )
            peer:close()
        end
    end
    -- Sends blocks of 16000 bytes, so many at most, or until one is queued. Returns how many the server's side has taken.
    local function fill_and_close( limit )
        conn, peer, events = open( address, { PRTO = "tls", VRFY = "none" } )
        peer = assert( ssl.wrap( peer, {
            mode = "server", protocol = "sslv23", verify = "none", options = { "all" },
            certificate = at.directory .. "/server.pem", key = at.directory .. "/server.key",
        } ) )
        peer:settimeout( 0 )
        poll_until( conn, function() return events.open end, function() peer:dohandshake() end )
        local block, blocks = string.rep( "x", 16000 ), 0
        while blocks < limit and not conn:is_queued() do
            lib.check( brief( conn.binary, conn, block ) )
            blocks = blocks + 1
        end
        brief( conn.close, conn )
        -- The connection lingers no longer. LuaSec's own close would wait for ever if the kernel's queue is just full.
        ahead = ahead + 60
        brief( proxy.handle, {} )
        lib.equal( Transport.close_lingering(), false )
        peer:close()
        return blocks
    end
    local blocks = fill_and_close( math.huge )
    for fewer = 1, 3 do fill_and_close( blocks - fewer ) end
else
    print "skipped: no LuaSec"
end

-- No LuaSec: the error says what is missing.
local loaded = package.loaded.ssl
package.loaded.ssl, package.preload.ssl = nil, function() error "module 'ssl' not found" end
lib.equal( select( 2, proxy.open( address, { PRTO = "tls" } ) ), "SSL_ERROR no LuaSec on this machine, and no proxy" )
server:accept():close()
package.loaded.ssl, package.preload.ssl = loaded, nil

-- Releases of LuaSec that lack functions, or have other words, and certificates of others. `words`: what the handshake returns;
-- `certificate`: the names in it.
local function secured( host, options, certificate, words )
    local sock = fakes.socket {}
    options.connect = function() return sock end
    options.CAFL = "/dev/null"
    function sock.dohandshake() return not words, words and words[1] end
    if certificate then
        function sock.getpeercertificate()
            return { extensions = function() return { ["2.5.29.17"] = certificate } end }
        end
    end
    package.loaded.ssl = { newcontext = function() return {} end, wrap = function() return sock end }
    local stream, why = Direct.stream( host, 1, true, options )
    package.loaded.ssl = has_ssl and ssl or nil
    lib.equal( sock.closed, stream == nil )
    return stream and "ok" or why
end
lib.equal( secured( "h", {} ), "SSL_ERROR this LuaSec cannot verify names: set PINS or VRFY=none" )
lib.like( secured( "h", { PINS = "sha256/00" } ), "^SSL_ERROR this LuaSec cannot verify fingerprints" )
lib.equal( secured( "h", { VRFY = "none" } ), "ok" )
lib.equal( secured( "h", { VRFY = "none" }, nil, {} ), "SSL_ERROR error" )
lib.equal( secured( "h", { VRFY = "none" }, nil, { "closed" } ), "SSL_ERROR closed" )
-- LuaSec before 0.6 returns the bytes of an address. A name is no address.
for host, result in pairs { ["97.98.99.100"] = "ok", abcd = "no", ["1.2.3.4"] = "no" } do
    lib.equal( secured( host, {}, { iPAddress = { "abcd" }, dNSName = { "*.2.3.4", "1.2.3.4" } } ) == "ok", result == "ok" )
end
lib.equal( secured( "1.2.3.4", {}, { iPAddress = { "1.2.3.4" } } ), "ok" )
lib.equal( secured( "a.b.c", {}, { dNSName = { "x", "*.B.c" } } ), "ok" )
-- An end without words.
local mute = fakes.socket {}
function mute.receive() return nil, nil, "" end
function mute.send() return nil, nil, 0 end
transport = Transport.new( mute )
lib.equal( select( 2, transport:fill() ), "error" )
transport:push "x"
lib.equal( select( 2, transport:flush() ), "error" )

-- Name servers that lie. `answers`: functions of the query that make datagrams. Returns as Resolver.resolve.
local names = socket.udp()
names:setsockname( "127.0.0.1", 0 )
Resolver.port = select( 2, names:getsockname() )
Resolver.hosts, Resolver.resolv_conf = "/nowhere", os.tmpname()
local file = io.open( Resolver.resolv_conf, "w" )
file:write( "nameserver 999.1.1.1\nnameserver 127.0.0.1\n" )
file:close()
local function resolve( ... )
    local answers, outcome = { ... }, nil
    local operation = Operation.start( function() return Resolver.resolve( "device.example", socket.gettime(), 0.3 ) end )
    names:settimeout( 0 )
    local stop = real_gettime() + OUTCOME
    repeat
        local done, result, why = brief( function() return { operation:step() } end ), nil, nil
        done, result, why = done[1], done[2], done[3]
        if done then outcome = result or why end
        local query, host, back = names:receivefrom()
        if query then
            for _, answer in ipairs( answers ) do names:sendto( answer( query ), host, back ) end
        end
        lib.check( real_gettime() < stop, "no outcome" )
        socket.select( nil, nil, 0.002 )
    until done
    return outcome
end
-- Returns a function that makes an answer. `flags`: of the third and fourth byte; `count`: of the records.
local function answer( records, count, flags, change )
    return function( query )
        query = change and change( query ) or query
        return query:sub( 1, 2 ) .. ( flags or "\129\128" ) .. "\0\1" .. string.char( math.floor( count / 256 ), count % 256 )
            .. "\0\0\0\0" .. query:sub( 13 ) .. records
    end
end
local function a( text ) return "\192\12\0\1\0\1\0\0\0\1\0\4" .. text end
local UNAVAILABLE, UNKNOWN = "temporary failure in name resolution", "host or service not provided, or not known"
local right, lie = answer( a "\127\0\0\9", 1 ), a "\6\6\6\6"
local alias = "\192\12\0\5\0\1\0\0\0\1\0\2\192\12"
lib.equal( resolve( right ), "127.0.0.9" )
-- They are no answers to this question, and the right one follows.
for _, wrong in ipairs {
    answer( lie, 1, nil, function( query ) return "zz" .. query:sub( 3 ) end ),
    answer( lie, 1, nil, function( query ) return ( query:gsub( "device", "decive" ) ) end ),
    answer( lie, 1, nil, function( query ) return query:sub( 1, 12 ) .. "\192\12\0\1\0\1" end ),
    answer( lie, 1, "\1\128" ), answer( "", 3 ), answer( a( "" ), 1 ),
    answer( string.rep( "\63", 600 ), 1 ), answer( "\192", 1 ), function() return "" end, function( query ) return query:sub( 1, 5 ) end,
    function( query ) return string.rep( query:sub( 1, 2 ) .. "\129\128", 2000 ) end,
} do
    local got = resolve( wrong, right )
    lib.check( got == "127.0.0.9" or got == UNKNOWN, got )
    lib.check( resolve( wrong ) ~= "6.6.6.6" )
end
lib.equal( resolve( answer( string.rep( alias, 20 ) .. a "\1\2\3\4", 21 ) ), "1.2.3.4" )
lib.equal( resolve( answer( string.rep( alias, 500 ), 500 ) ), UNKNOWN )
lib.equal( resolve( answer( "", 0, "\129\131" ) ), UNKNOWN )
lib.equal( resolve( answer( "", 0, "\129\130" ) ), UNAVAILABLE )
-- Truncated: what it lacks is not known.
lib.equal( resolve( answer( alias, 1, "\131\128" ) ), UNAVAILABLE )
os.remove( Resolver.resolv_conf )
-- What looks like an address and is none is a name: LuaSocket would block while it asks for it.
for host, expected in pairs {
    ["1.2.3.4"] = true, ["0.0.0.0"] = true, ["256.1.1.1"] = false, ["1.2.3.04"] = false, ["1.2.3"] = false, ["1111.1.1.1"] = false,
    ["::1"] = true, ["a.b"] = false, [""] = false,
} do lib.equal( Resolver.is_address( host ), expected ) end
lib.equal( Direct.target( "1.2.3.4:70000" ), nil )

lib.no_new_globals()
print "ok"
