-- A plugin whose connection is opened again by the library, through a proxy that ends, hangs and comes back. Only Luup's timers
-- poll. It prints what has happened, and reads a line when the test has done its part.
--
-- usage: lua5.1 proxy_restart.lua proxy=PORT server=PORT luup=PORT, in this directory; see tests/e2e/websocket/lua_clients.rs

local socket = require "socket"
local lib = require "lib"
local engine = require "engine"
local proxy = require "L_SockProxyClient"

local at = lib.arguments()
engine.listen( at.luup )
engine.provide( true )
proxy.defaults.port, proxy.defaults.proxy_interval, proxy.defaults.patience = at.proxy, 0.2, 0.5

local group, openings = {}, engine.queue()
engine.actions.HandleReceive = function( _, parameters ) proxy.handle( group, parameters.Pid ) end
local got = engine.queue()
local conn = lib.check( proxy.open( "ws://127.0.0.1:" .. at.server .. "/", {
    group = group, reconnect = true, notify = { device = 123, service = "urn:example", action = "HandleReceive" },
    on_open = function( self ) openings.put( self.direct and "direct" or "proxy" ) end,
    on_message = function( _, message ) got.put( message ) end,
    on_close = function( _, code ) got.put( "closed " .. tostring( code ) ) end,
} ) )

local function say( words )
    io.write( words, "\n" )
    io.flush()
end
local function echo( text )
    lib.equal( conn:text( text ), true )
    lib.equal( got.next(), text )
end

lib.equal( openings.next(), "proxy" )
echo "by the proxy"
say "proxy"
io.read() -- The proxy has ended: the next connection is made without it.
lib.equal( got.next(), "closed 1006" )
lib.equal( openings.next(), "direct" )
echo "without it"
say "direct"
io.read() -- It is there again: the connection goes back to it.
lib.equal( got.next(), "closed 1001" )
lib.equal( openings.next(), "proxy" )
echo "by the next proxy"
-- The server ends the connection: a reconnection, and no loop in the plugin.
conn:text "close 1000 bye"
lib.equal( got.next(), "closed 1000" )
lib.equal( openings.next(), "proxy" )
conn:close()
lib.equal( conn.state, "closed" )
lib.equal( next( group ), nil )
-- A proxy that hangs closes nothing. The library asks it after some silence, not before.
conn = lib.check( proxy.open( "ws://127.0.0.1:" .. at.server .. "/", {
    reconnect = true, on_open = function( self ) openings.put( self.direct and "direct" or "proxy" ) end,
    on_message = function( _, message ) got.put( message ) end,
    on_close = function( _, code, reason ) got.put( "closed " .. tostring( code ) .. " " .. reason:gsub( "^.*: ", "" ) ) end,
} ) )
lib.equal( openings.next(), "proxy" )
-- So does the end of a connection that is not opened again: its plugin would wait for ever.
local ends = engine.queue()
local once = lib.check( proxy.open( "ws://127.0.0.1:" .. at.server .. "/", {
    on_open = function( self ) openings.put( self.direct and "direct" or "proxy" ) end,
    on_close = function( _, code, reason ) ends.put( "closed " .. tostring( code ) .. " " .. reason:gsub( "^.*: ", "" ) ) end,
} ) )
lib.check( once:wait( 30 ) )
-- Ten times proxy_interval, twice: the proxy answers, and nothing happens.
local stop = socket.gettime() + 5
engine.run_until( function() return socket.gettime() > stop end, "silence" )
lib.equal( conn.direct, false )
lib.equal( once.state, "open" )
echo "by a proxy that answers"
say "silent"
io.read() -- The proxy hangs.
lib.equal( got.next(), "closed 1006 timeout" )
lib.equal( openings.next(), "direct" )
lib.equal( ends.next(), "closed 1006 timeout" )
lib.equal( once.state, "closed" )
echo "without a proxy that hangs"
say "direct"
io.read() -- It goes on.
lib.equal( got.next(), "closed 1001 the proxy is there again" )
lib.equal( openings.next(), "proxy" )
echo "by the proxy that goes on"
conn:close()
engine.withdraw()
lib.no_new_globals()
print "ok"
