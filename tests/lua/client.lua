-- A plugin that uses L_SockProxyClient in a simulated Luup: what only the proxy does. either.lua has the rest.
--
-- usage: lua5.1 client.lua NAME=VALUE..., in this directory; see tests/e2e/websocket/lua_clients.rs

local socket = require "socket"
local lib = require "lib"
local engine = require "engine"
local plugin = require "plugin"
local proxy = require "L_SockProxyClient"
local Clock = require "L_SockProxyClock"

local at = lib.arguments()
local group, open = plugin.group, plugin.begin( proxy, at, false )
local plain = "ws://127.0.0.1:" .. at.server

-- What only the proxy knows.
local conn = open( plain .. "/", {} )
lib.check( conn:is_open() and not conn.kept and conn.direct == false )
lib.like( conn.pid, "^%x+$" )
conn:close()
local mute = assert( socket.bind( "127.0.0.1", 0 ) )
lib.like( select( 2, proxy.open( plain, { port = at.closed } ) ), "^no proxy at 127.0.0.1:%d+: " )
lib.like( select( 2, proxy.open( plain, { port = select( 2, mute:getsockname() ), patience = 0.2 } ) ), "does not greet: timeout$" )

-- TCP, with the proxy itself as the remote. TLS, with the server's first line.
local events
conn, events = open( "127.0.0.1:" .. at.proxy, {} )
lib.like( events.next(), "^message OK TOGGLEDBITS%-SOCKPROXY 1 %x+\n BINA$" )
conn:binary( "QUIT\n" )
lib.equal( events.next(), "message OK QUIT\n BINA" )
lib.equal( events.next(), "close nil closed" )
-- A second connection, by which the test tells the server what to say.
local watcher, closed_with, watcher_events = plugin.watch( open, plain .. "/" )

-- Kept over a Luup reload while messages arrive: no message is lost or delivered twice. The reload destroys the sockets and
-- all Lua state except what the plugin has stored.
local stored = { pid = proxy.secret(), seen = 0 }
local function resume( options )
    options = options or {}
    options.KEEP, options.seen = 300, stored.seen
    options.on_seen = function( _, seen ) stored.seen = seen end
    options.notify = engine.notify { device = 123, action = "HandleReceive", pid = stored.pid }
    conn, events = open( plain .. "/", options )
    lib.check( type( conn ) == "table", conn )
    return conn.kept
end
lib.equal( resume(), false )
conn:text( "name kept" )
lib.equal( events.next(), "message named TEXT" )
local function server_says( ... )
    for _, command in ipairs { ... } do
        watcher:text( "to kept " .. command )
        lib.equal( watcher_events.next(), "message told TEXT" )
    end
end
server_says( "one" )
lib.equal( events.next(), "message one TEXT" )
lib.equal( stored.seen, 2 )
for round = 1, 3 do
    if round == 2 then
        -- The old socket had read it, but it was not stored: it is sent again.
        group[conn] = nil
        server_says( "unread" )
        local transport = conn.channel.transport
        lib.check( transport:await( Clock.now(), 30 ), "no message" )
        transport:fill()
        lib.check( transport.have > 0, "no message" )
    end
    -- Round 3: the old socket stays open, as in a child process of Luup.
    if round < 3 then conn.channel:close() end
    group[conn] = nil
    server_says( "two" .. round, "binary 20000", "three" )
    for name in pairs( package.loaded ) do
        if name:match( "^L_SockProxy" ) then package.loaded[name] = nil end
    end
    proxy = require "L_SockProxyClient"
    proxy.defaults.port, proxy.defaults.patience, proxy.defaults.timeout = at.proxy, 30, 30
    proxy.defaults.PACE, proxy.defaults.direct = 0, false
    lib.equal( resume(), true )
    if round == 2 then lib.equal( events.next(), "message unread TEXT" ) end
    for _, expected in ipairs { "two" .. round .. " TEXT", string.rep( "\7", 20000 ) .. " BINA", "three TEXT" } do
        lib.equal( events.next(), "message " .. expected )
    end
    lib.equal( #events, 0 )
end
-- The plugin missed more than the proxy keeps: conn.gap is set, and the connection is new.
server_says( "binary 60000", "binary 60000", "binary 60000" )
for _ = 1, 3 do events.next() end
conn:leave()
group[conn] = nil
stored.seen = 1
lib.equal( resume(), false )
lib.equal( conn.gap, true )
conn:text( "new" )
lib.equal( events.next(), "message new TEXT" )
-- The user has changed the address: the connection to the old one ends.
local function resume_at( url )
    local options = { KEEP = 300, seen = stored.seen, group = group, RQTM = 60000, on_seen = function( _, seen ) stored.seen = seen end }
    events = engine.record( options )
    options.notify = engine.notify { device = 123, action = "HandleReceive", pid = stored.pid }
    conn = assert( proxy.open( url, options ) )
    return conn.kept
end
conn:leave()
lib.equal( resume_at( plain .. "/other" ), false )
lib.equal( conn.gap, false )
lib.equal( stored.seen, 0 )
conn:text( "head" )
lib.like( events.next(), "^message GET /other HTTP" )
-- A redirect is no other target.
local moved = plain .. "/moved/" .. at.server .. "/there"
conn:leave()
lib.equal( resume_at( moved ), false )
conn:leave()
lib.equal( resume_at( moved ), true )
-- Resumed by its pid alone, and dropped by its pid alone.
conn:leave()
conn = assert( proxy.attach( stored.pid, { seen = stored.seen } ) )
lib.check( conn.kept and conn.pid == stored.pid )
conn:leave()
lib.equal( proxy.drop( stored.pid ), true )
lib.equal( select( 2, proxy.drop( stored.pid ) ), "No such pid" )
lib.equal( select( 2, proxy.attach( stored.pid ) ), "No such pid" )
-- close() also ends a kept connection, of a WebSocket or of a stream.
lib.equal( resume(), false )
conn:close( 4002, "over" )
closed_with "4002 over"
lib.equal( select( 2, proxy.attach( stored.pid ) ), "No such pid" )
stored.seen = 0
lib.equal( resume { FRAM = "RAW" }, false )
conn:close()
lib.equal( select( 2, proxy.attach( stored.pid, { FRAM = "RAW" } ) ), "No such pid" )

-- Without notifications: polled with a timeout of zero while a message arrives slowly.
local received = {}
conn = assert( proxy.open( plain .. "/", { on_message = function( _, text ) received[#received + 1] = text end } ) )
local long = string.rep( "0123456789", 100 )
conn:text( "slow " .. long )
conn:text( "after" )
engine.poll_until( function() return conn:sock() end, function() conn:poll() end, function() return #received == 2 end, "polled" )
lib.equal( received[1] .. received[2], long .. "after" )
lib.equal( conn:poll(), false )

lib.no_new_globals()
print "ok"
