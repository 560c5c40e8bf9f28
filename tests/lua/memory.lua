-- What the client library takes of Luup's memory with one connection by way of the proxy: 150 kB at most, since all plugins of a
-- box share one Lua. A Vera's Lua has pointers half as long, so that it takes less there.
--
-- usage: lua5.1 memory.lua NAME=VALUE..., in this directory; see tests/e2e/websocket/lua_clients.rs

local lib = require "lib"
local engine = require "engine"

local MOST = 150

local function count()
    for _ = 1, 4 do collectgarbage() end
    return collectgarbage "count"
end

local at = lib.arguments()
engine.listen( at.luup )
engine.provide( true )
local before = count()
local proxy = require "L_SockProxyClient"
proxy.defaults.port, proxy.defaults.patience, proxy.defaults.direct = at.proxy, 30, true
local conn = assert( proxy.open( "ws://127.0.0.1:" .. at.server .. "/echo", { on_message = function() end } ) )
engine.run_until( function() return conn:is_open() end, "the connection" )
local used = count() - before
conn:close()
lib.check( used <= MOST, string.format( "%.1f kB", used ) )
print "ok"
