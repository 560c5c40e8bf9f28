-- A plugin that uses L_SockProxyClient in a simulated Luup: what works with the proxy and without it, to the letter.
--
-- usage: lua5.1 either.lua mode=proxy|direct NAME=VALUE..., in this directory; see tests/e2e/websocket/lua_clients.rs

local socket = require "socket"
local lib = require "lib"
local engine = require "engine"
local plugin = require "plugin"
local proxy = require "L_SockProxyClient"

local at = lib.arguments()
local direct = at.mode == "direct"
local group, open = plugin.group, plugin.begin( proxy, at, direct )
proxy.defaults.directory, proxy.defaults.log = at.directory, function() end
engine.provide( true )
local plain, secure = "ws://127.0.0.1:" .. at.server, "wss://127.0.0.1:" .. at.secure

-- Messages in both directions: empty, with bytes that a line cannot contain, and long. Only notifications trigger the reads.
local conn, events = open( plain .. "/", { MAXM = 200000 } )
lib.check( conn:is_open() and not conn.kept )
for _, text in ipairs { "hello", "", "gr\195\188\195\159\n\0\r\n", string.rep( "0123456789", 15000 ) } do
    lib.equal( conn:text( text ), true )
    lib.equal( events.next(), "message " .. text .. " TEXT" )
end
lib.equal( conn:binary( "\0\255\n" ), true )
lib.equal( events.next(), "message \0\255\n BINA" )
lib.equal( conn.seen, 5 )
-- In fragments, in both directions, and byte by byte from the server.
lib.equal( conn:send( "FRAG", "pie" ) and conn:send( "FRAG", "c" ) and conn:binary( "es" ), true )
lib.equal( events.next(), "message pieces BINA" )
conn:text( "pieces a bc def" )
lib.equal( events.next(), "message abcdef TEXT" )
conn:text( "slow and steady" )
lib.equal( events.next(), "message and steady TEXT" )
conn:text( "masked" )
lib.equal( events.next(), "message yes TEXT" )
-- Pings: the proxy answers the server's, and the server answers the plugin's.
conn:text( "ping there" )
lib.equal( events.next(), "message ponged there TEXT" )
conn:ping( "here" )
lib.equal( events.next(), "pong here" )
-- The closing handshake, started by either side.
conn:text( "close 4001 why not" )
lib.equal( events.next(), "close 4001 why not" )
lib.check( conn.state == "closed" and conn.code == 4001 and conn.reason == "why not" )
lib.equal( select( 2, conn:poll() ), "why not" )
lib.equal( next( group ), nil )
for text, expected in pairs {
    close = "close 1005 ", vanish = "close 1006 closed without a close frame", reserved = "close 1002",
    ["hex 880203ed"] = "close 1002 invalid close code: 1005",
} do
    conn, events = open( plain .. "/", {} )
    conn:text( text )
    lib.equal( events.next():sub( 1, #expected ), expected )
end
conn, events = open( plain .. "/", { MAXM = 1000 } )
conn:text( "binary 1001" )
lib.like( events.next(), "^close 1009" )

-- What a server may get wrong: nothing, unless LENI allows it. Text in Latin-1, also as the reason of a close frame, and masked
-- frames.
local LATIN, MASKED, REASON = "hex 81054772fcdf65", "hex 8a8101020304718182010203046a6b", "hex 880403e8fcdf"
for _, case in ipairs {
    { {}, LATIN, "close 1007 " }, { {}, MASKED, "close 1002 " }, { {}, REASON, "close 1007 " },
    { { LENI = false }, LATIN, "close 1007 " }, { { LENI = "utf8" }, MASKED, "close 1002 " },
    { { LENI = { "mask" } }, LATIN, "close 1007 " }, { { LENI = "mask" }, REASON, "close 1007 " },
    { { LENI = "utf8" }, LATIN, "message Gr\252\223e TEXT" }, { { LENI = "Utf8, MASK" }, LATIN, "message Gr\252\223e TEXT" },
    { { LENI = "mask" }, MASKED, "message ki TEXT" }, { { LENI = { "utf8", "mask" } }, MASKED, "message ki TEXT" },
    { { LENI = "utf8" }, REASON, "close 1000 \252\223" },
    { { LENI = "utf8,mask", FRAM = "LINE" }, LATIN, "message Gr\252\223e TEXT" },
} do
    conn, events = open( plain .. "/", case[1] )
    conn:text( case[2] )
    lib.equal( events.next():sub( 1, #case[3] ), case[3] )
    conn:close()
end
for value, shown in pairs {
    ["utf8,typos"] = "utf8,typos", [""] = "", ["utf-8"] = "utf-8", ["utf8 mask"] = "utf8%20mask",
} do
    lib.equal( open( plain .. "/", { LENI = value } ), "Invalid option LENI=" .. shown )
end
lib.equal( open( plain .. "/", { LENI = { "utf8,mask" } } ), "Invalid option LENI=utf8%2cmask" )
lib.equal( open( "127.0.0.1:" .. at.server, { LENI = "utf8" } ), "Invalid option LENI=utf8" )

-- The plugin closes with many unread messages: the server still receives everything that it sent.
local watcher, closed_with = plugin.watch( open, plain .. "/" )
for round = 1, 50 do
    conn = open( plain .. "/", {} )
    for _ = 1, round do conn:text( "pieces a b c d e f g h" ) end
    lib.equal( conn:text( "last" ) and conn:close( 4321, "enough " .. round ), true )
    closed_with( "4321 enough " .. round )
end
conn = open( plain .. "/", {} )
conn:close()
closed_with "1000 "
conn = open( plain .. "/", {} )
conn:close( 1005 )
closed_with "1005 "

-- A thousand messages at once, for a handler that takes its time: turns are short, and nothing is left unread.
local handled, longest = 0, 0
conn = proxy.open( plain .. "/", {
    group = group, RQTM = 60000, notify = engine.notify { device = 123, action = "HandleReceive" }, on_message = function()
        handled = handled + 1
        if handled % 10 == 0 then socket.sleep( 0.01 ) end
    end,
} )
local real_poll = getmetatable( conn ).__index.poll
function conn.poll( ... )
    local before = handled
    local more, bytes = real_poll( ... )
    longest = math.max( longest, handled - before )
    return more, bytes
end
for index = 1, 1000 do lib.equal( conn:text( tostring( index ) ), true ) end
engine.run_until( function() return handled == 1000 end, "all messages" )
-- 0.05 s are five or six handlers that sleep.
lib.check( longest <= 70, longest )
conn:close()

-- Refused connections, with a wait and without.
lib.equal( open( plain .. "/status/403", {} ), "BAD_HTTP_STATUS 403 Because" )
lib.like( open( "ws://127.0.0.1:" .. at.closed, {} ), "^COULD_NOT_CONNECT" )
lib.equal( open( plain .. "/raw/hung-up", {} ), "SOCKET_ERROR closed without an answer" )
for _, url in ipairs { "ws://me:secret@127.0.0.1/", "ws://127.0.0.1/#top" } do lib.equal( open( url, {} ), "INVALID_URL" ) end
lib.like( open( "ws://:/", {} ), "^INVALID_URL" )
lib.equal( open( "http://h/", { FRAM = "RAW" } ), "Invalid host:port" )
lib.like( open( plain .. "/", { XXXX = 1 } ), "^Invalid option XXXX" )
lib.like( open( "127.0.0.1:" .. at.server, { RQTM = 1 } ), "^Invalid option RQTM" )
-- The error has the option as the proxy read it, but no password.
for shown, options in pairs {
    AUTH = { AUTH = "me:secret" }, HDRS = { HDRS = { "X-Token: secret" } }, HELO = { HELO = "secret", PRTO = "udp" },
    ["SUBP=a,b"] = { SUBP = { "a", "b" } }, ["RHDR=on"] = { RHDR = true }, ["UAGT=x%20y"] = { UAGT = "x y" },
} do lib.equal( open( "127.0.0.1:" .. at.server, options ), "Invalid option " .. shown ) end
lib.equal( open( "127.0.0.1:" .. at.server, { RTIM = "soon" } ), "option RTIM is no number: soon" )
lib.equal( open( plain .. "/", { timeuot = 1 } ), "no such option: timeuot" )
lib.equal( open( plain .. "/", { vrfy = "none" } ), "no such option: vrfy" )
lib.equal( open( plain .. "/", { timeout = "long" } ), "option timeout is no number: long" )
conn, events = open( plain .. "/status/404", { timeout = 0 } )
-- Sent before the outcome is known, it waits for a connection.
lib.equal( conn:text( "early" ), true )
lib.equal( events.next(), "error BAD_HTTP_STATUS 404 Because" )
lib.equal( next( group, watcher ) == nil and next( group ) == watcher, true )
conn, events = open( plain .. "/", { timeout = 0 } )
lib.equal( conn:text( "early" ), true )
lib.equal( events.next(), "open" )
lib.equal( events.next(), "message early TEXT" )
conn:text( "now" )
lib.equal( events.next(), "message now TEXT" )
conn:close()
-- A server that accepts connections and never answers: the proxy's timeout, and the plugin's own.
local mute = assert( socket.bind( "127.0.0.1", 0 ) )
local silent = "ws://127.0.0.1:" .. select( 2, mute:getsockname() )
lib.equal( open( silent, { RQTM = 200 } ), "REQUEST_TIMEOUT timeout" )
lib.equal( open( silent, { timeout = 0.2 } ), "timeout" )
lib.like( open( silent:gsub( "^ws", "wss" ), { CTIM = 200 } ), "^CONNECT_TIMEOUT" )

-- The request's head.
conn, events = open( plain .. "/path?a=b%20c", {
    HDRS = { "X-One: 1, 2", ["Host"] = "elsewhere" }, AUTH = "me:pass word", UAGT = "Lua, of course", ORIG = "http://me",
    SUBP = { "chat", "news" }, MASK = false, RHDR = true, DEFL = true, PNGI = 3600, RTIM = 0, PACE = 0, BLKS = 1000,
} )
lib.like( events.next(), "^head HTTP/1.1 101 .*X%-Server: scripted\r\n" )
conn:text( "head" )
local head = events.next()
for _, line in ipairs {
    "GET /path?a=b%20c HTTP/1.1", "X-One: 1, 2", "Host: elsewhere", "Authorization: Basic bWU6cGFzcyB3b3Jk",
    "User-Agent: Lua, of course", "Origin: http://me", "Sec-WebSocket-Protocol: chat, news",
} do
    lib.check( head:find( line, 1, true ), line .. " in " .. head )
end
if not direct then lib.check( head:find( "permessage-deflate", 1, true ), head ) end
conn:text( "masked" )
lib.equal( events.next(), "message no TEXT" )
conn:close()
lib.equal( open( plain .. "/sub/other", { SUBP = "chat" } ), "WEBSOCKET_PROTOCOL_ERROR subprotocol not offered: other" )
conn = open( plain .. "/sub/chat", { SUBP = "news,chat" } )
lib.check( conn:is_open() )
conn:close()
conn = open( plain .. "/moved/" .. at.server .. "/there", {} )
lib.check( conn:is_open() )
conn:close()
lib.like( open( plain .. "/moved/" .. at.server .. "/there", { RDIR = 0 } ), "^REDIRECT_MAX" )

-- Control frames answered by the plugin, or only shown to it.
conn, events = open( plain .. "/", { CTRL = "hand" } )
conn:text( "ping you" )
lib.equal( events.next(), "ping you" )
conn:pong( "yes" )
lib.equal( events.next(), "message ponged yes TEXT" )
conn:close()
conn, events = open( plain .. "/", { CTRL = "show" } )
conn:text( "ping you" )
lib.equal( events.next(), "ping you" )
lib.equal( events.next(), "message ponged you TEXT" )
conn:text( "pong unasked" )
lib.equal( events.next(), "pong unasked" )
conn:close()
for options, reason in pairs { [{ RTIM = 200 }] = "silent for too long", [{ PNGI = 1 }] = "no answer to a ping" } do
    conn, events = open( plain .. "/", options )
    conn:text( "quiet" )
    lib.equal( events.next(), "close 1006 " .. reason )
end

-- Lines, and a stream.
conn, events = open( plain .. "/", { FRAM = "LINE" } )
conn:text( '{"a": 1}' )
lib.equal( events.next(), 'message {"a": 1} TEXT' )
conn:text( "close" )
lib.equal( events.next(), "close nil closed" )
conn, events = open( plain .. "/", { FRAM = "RAW" } )
conn:binary( "bytes" )
lib.equal( events.next(), "message bytes BINA" )
conn:close()

-- TLS, verified and not.
lib.like( open( secure .. "/", {} ), "^SSL_ERROR" )
for _, options in ipairs { { VRFY = "none" }, { PINS = at.pin }, { CAFL = "ca.pem" }, { CAFL = "ca.pem", SNIH = "localhost" } } do
    conn, events = open( secure .. "/", options )
    lib.check( type( conn ) == "table", conn )
    conn:text( "secret" )
    lib.equal( events.next(), "message secret TEXT" )
    conn:close()
end
lib.like( open( secure .. "/", { CAFL = "other-ca.pem" } ), "^SSL_ERROR" )
lib.like( open( secure .. "/", { CAFL = "ca.pem", SNIH = "elsewhere" } ), "^SSL_ERROR" )
lib.like( open( "wss://127.0.0.1:" .. at.old, { VRFY = "none", TLSV = "1.3" } ), "^SSL_ERROR" )
local private = "wss://127.0.0.1:" .. at.private
lib.like( open( private, { VRFY = "none" } ), "^SSL_ERROR" )
conn = open( private, { VRFY = "none", CERT = "client.pem", PKEY = "client.key" } )
lib.check( type( conn ) == "table", conn )
conn:close()

-- TCP: bytes both ways, and the end of the remote. TLS, with the server's first line.
local tcp = assert( socket.bind( "127.0.0.1", 0 ) )
tcp:settimeout( 30 )
conn, events = open( "127.0.0.1:" .. select( 2, tcp:getsockname() ), {} )
local peer = tcp:accept()
peer:settimeout( 30 )
conn:binary( "to the device\n" )
lib.equal( peer:receive( "*l" ), "to the device" )
peer:send( "to the plugin" )
lib.equal( events.next(), "message to the plugin BINA" )
peer:close()
lib.equal( events.next(), "close nil closed" )
conn, events = open( "127.0.0.1:" .. at.secure, { PRTO = "tls", CAFL = "ca.pem" } )
conn:binary( "GET /status/418 HTTP/1.1\r\n\r\n" )
lib.like( events.next(), "^message HTTP/1.1 418 Because" )
conn:close()

-- reconnect: one call of open() for ever, with a device that is not there yet, ends, and is there again. What the plugin sends while
-- the connection is made waits for it, over failures.
local steady
steady, events = open( "127.0.0.1:" .. at.third, { reconnect = true, timeout = 0, CTIM = 30000 } )
lib.equal( steady:binary( "early\n" ), true )
lib.like( events.next(), "^error .*refused" )
lib.equal( select( 2, steady:binary( "not now" ) ), "not connected" )
for round = 1, 2 do
    local device = assert( socket.bind( "127.0.0.1", at.third ) )
    device:settimeout( 30 )
    local said
    repeat said = events.next() until said == "open"
    local caller = device:accept()
    caller:settimeout( 30 )
    if round == 1 then lib.equal( caller:receive( "*l" ), "early" ) end
    lib.equal( steady:binary( "hello\n" ), true )
    lib.equal( caller:receive( "*l" ), "hello" )
    device:close()
    caller:close()
    lib.equal( events.next(), "close nil closed" )
end
-- Closed by the plugin, it stays closed.
steady:close()
lib.equal( steady.state, "closed" )
lib.equal( group[steady], nil )

-- HEAL: the remote's end is not the connection's, over a stream and a WebSocket, and HELO is said each time.
local heals = assert( socket.bind( "127.0.0.1", 0 ) )
heals:settimeout( 0 )
-- Waits for a connection, and for these bytes on it, while timers poll.
local function accepted( expected )
    local remote, got = nil, ""
    engine.run_until( function()
        remote = remote or heals:accept()
        if remote and #got < #expected then
            remote:settimeout( 0 )
            local all, _, part = remote:receive( #expected - #got )
            got = got .. ( all or part or "" )
        end
        return #got == #expected
    end, "the opening" )
    lib.equal( got, expected )
    return remote
end
local told
conn, told = open( "127.0.0.1:" .. select( 2, heals:getsockname() ), { HEAL = 5, HELO = { "LOGIN\r\n", "SUB\n" } } )
lib.check( type( conn ) == "table", conn )
local remote = accepted "LOGIN\r\nSUB\n"
remote:send( "first" )
lib.equal( told.next(), "message first BINA" )
remote:close()
-- Through the proxy a stream is not told, so that what the plugin sends may still be for the old connection. Else it waits.
if direct then
    lib.equal( told.next(), "lost closed" )
    lib.equal( conn:binary( "meanwhile\n" ), true )
end
remote = accepted( "LOGIN\r\nSUB\n" .. ( direct and "meanwhile\n" or "" ) )
if direct then lib.equal( told.next(), "back" ) end
remote:send( "second" )
lib.equal( told.next(), "message second BINA" )
conn:close()
remote:close()
conn, events = open( plain .. "/", { HEAL = 5, HELO = "hello" } )
lib.equal( events.next(), "message hello TEXT" )
conn:text( "close 4000 restart" )
lib.equal( events.next(), direct and "lost restart" or "lost closed 4000 restart" )
lib.equal( conn:text( "meanwhile" ), true )
-- The answers come behind the event.
lib.equal( events.next(), "back" )
lib.equal( events.next() .. events.next(), "message hello TEXTmessage meanwhile TEXT" )
conn:shut( 1000, "enough" )
lib.equal( events.next(), "close 1000 enough" )
lib.equal( conn.state, "closed" )

-- UDP with datagrams as messages.
local device = socket.udp()
device:setsockname( "127.0.0.1", 0 )
device:settimeout( 30 )
conn, events = open( "127.0.0.1:" .. select( 2, device:getsockname() ), { PRTO = "udp", FRAM = "MESG" } )
conn:binary( "search" )
local datagram, address, port = device:receivefrom()
lib.equal( datagram, "search" )
device:sendto( "found\n", address, port )
local sender = events.next():match( "^message found\n DGRM (127.0.0.1:%d+)$" )
conn:datagram( "thanks", sender )
lib.equal( device:receive(), "thanks" )
conn:close()

engine.withdraw()
lib.no_new_globals()
print "ok"
