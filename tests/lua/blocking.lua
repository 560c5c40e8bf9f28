-- No call blocks Luup for long: neither a device that does not answer, nor a name server that does not, nor a proxy that is
-- stopped, not there, or on a host whose name is not resolved.
--
-- usage: lua5.1 blocking.lua proxy=PORT stopped=PORT closed=PORT luup=PORT, in this directory; see
-- tests/e2e/websocket/lua_clients.rs

local socket = require "socket"
local lib = require "lib"
local engine = require "engine"
local proxy = require "L_SockProxyClient"
local Resolver = require "L_SockProxyResolver"

local at = lib.arguments()
engine.listen( at.luup )
engine.provide( true )
proxy.defaults.log = function() end
-- Seconds that a call may wait in all. A machine that runs other tests meanwhile may wake the script late, which does not count.
local LIMIT = 0.1
local waited = 0
for _, name in ipairs { "select", "sleep" } do
    local real = socket[name]
    socket[name] = function( ... )
        local seconds, began = select( name == "select" and 3 or 1, ... ) or math.huge, socket.gettime()
        lib.check( seconds <= LIMIT, name .. " may wait " .. seconds )
        local first, second, third = real( ... )
        waited = waited + math.min( socket.gettime() - began, seconds )
        return first, second, third
    end
end
local methods = getmetatable( socket.tcp() ).__index
local real_settimeout = methods.settimeout
function methods.settimeout( sock, seconds, ... )
    lib.check( seconds == 0 or not proxy.measured, "a socket that blocks" )
    return real_settimeout( sock, seconds, ... )
end

-- LuaSocket waits for the name server.
local real_connect = methods.connect
function methods.connect( sock, host, ... )
    lib.check( not proxy.measured or Resolver.is_address( host ), "LuaSocket resolves " .. host )
    return real_connect( sock, host, ... )
end

-- Returns the results of a call that must not wait longer than LIMIT in all.
local function brief( call, ... )
    waited, proxy.measured = 0, true
    local results = { call( ... ) }
    proxy.measured = false
    lib.check( waited <= LIMIT + 0.01, waited )
    return results[1], results[2]
end

-- A device that accepts and is silent; one that does not accept: its queue is full.
local mute = assert( socket.bind( "127.0.0.1", 0, 0 ) )
local silent = select( 2, mute:getsockname() )
local fill = {}
for index = 1, 4 do
    fill[index] = socket.tcp()
    fill[index]:settimeout( 0 )
    fill[index]:connect( "127.0.0.1", silent )
end
-- A name server that does not answer.
local name_server = socket.udp()
name_server:setsockname( "127.0.0.1", 0 )
Resolver.port = select( 2, name_server:getsockname() )
local resolv = os.tmpname()
local file = io.open( resolv, "w" )
file:write( "nameserver 127.0.0.1\n" )
file:close()
Resolver.resolv_conf = resolv

for _, address in ipairs { { at.proxy }, { at.stopped }, { at.closed }, { at.proxy, "proxy.example" } } do
    local port = address[1]
    proxy.defaults.host = address[2] or "127.0.0.1"
    for _, target in ipairs { "ws://127.0.0.1:" .. silent .. "/", "127.0.0.1:" .. silent, "ws://device.example/" } do
        if address[2] or not ( port == at.proxy and target:find "example" ) then
            proxy.defaults.port = port
            local errors = engine.queue()
            local conn, why = brief( proxy.open, target, {
                CTIM = 400, RQTM = target:match "^ws" and 500 or nil, patience = 0.2, notify = { device = 1, service = "s", action = "a" },
                on_error = function( _, words ) errors.put( words ) end, on_open = function() errors.put "open" end,
            } )
            lib.check( conn, why )
            brief( conn.text, conn, "early" )
            -- Each poll is brief, and the outcome follows.
            local poll = conn.poll
            conn.poll = function( ... ) return brief( poll, ... ) end
            local outcome = errors.next()
            lib.check( outcome:match "timeout" or outcome:match "temporary failure" or outcome == "open", outcome )
            conn.poll = poll
            brief( conn.close, conn )
        end
    end
    -- Listening.
    proxy.defaults.port = port
    brief( proxy.listen, { port = 1, notify = { device = 1, service = "s", action = "a" }, on_incoming = function() end } )
    brief( proxy.drop, "12345678" )
end

proxy.defaults.host = "127.0.0.1"

-- A device that accepts and never reads: sending queues, and then says why not.
local deaf = assert( socket.bind( "127.0.0.1", 0 ) )
proxy.defaults.port = at.closed
local conn = lib.check( proxy.open( "127.0.0.1:" .. select( 2, deaf:getsockname() ), {} ) )
local block, sent, why = string.rep( "x", 100000 ), nil, nil
for _ = 1, 200 do
    sent, why = brief( conn.binary, conn, block )
    if not sent then break end
end
lib.equal( why, "send queue is full" )
brief( conn.close, conn )
os.remove( resolv )
engine.withdraw()
print "ok"
