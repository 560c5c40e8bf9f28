-- A plugin whose listener sees the proxy end and come back. It polls at intervals, as `timer` does in Luup, and prints what
-- happens: "listening", "lost", and "ok" when a client has connected to it again.
--
-- usage: lua5.1 listener_restart.lua proxy=PORT listen=PORT, in this directory; see tests/e2e/websocket/lua_clients.rs

local lib = require "lib"
local proxy = require "L_SockProxyClient"

local at = lib.arguments()
proxy.defaults.port, proxy.defaults.patience = at.proxy, 30
local function say( words )
    print( words )
    io.stdout:flush()
end

-- Seconds. A test that passes never waits for it.
local LIMIT = 60

local group, events = {}, {}
local listener = lib.check( proxy.listen {
    port = at.listen, group = group, log = function() end,
    on_incoming = function( self, arrival )
        self:accept( arrival.id, { on_message = function( conn, text ) conn:text( text:upper() ) end } )
    end,
    -- Connecting again may fail, too, while the proxy ends.
    on_lost = function( _, reason ) events.lost = events.lost or reason end,
    on_listening = function() events.back = true end,
} )
say "listening"
proxy.loop( group, function() return events.lost end, LIMIT )
lib.equal( events.lost, "the proxy has ended it" )
lib.check( not listener:is_listening() )
say "lost"
proxy.loop( group, function() return events.back end, LIMIT )
lib.check( listener:is_listening(), events.lost )
lib.check( proxy.open( "ws://127.0.0.1:" .. at.listen .. "/", {
    timeout = 0, group = group, on_open = function( conn ) conn:text( "again" ) end,
    on_message = function( _, text ) events.text = text end,
} ) )
proxy.loop( group, function() return events.text end, LIMIT )
lib.equal( events.text, "AGAIN" )
lib.no_new_globals()
say "ok"
