-- Helpers of the other scripts in this directory. Not a script.

local socket = require "socket"

local lib = {}

-- The client libraries in the source tree.
package.path = "../../luup/client/?.lua;../../luup/compat/?.lua;" .. package.path

-- Raises an error with the reason unless `condition` is true.
function lib.check( condition, why )
    if not condition then error( why or "wrong", 2 ) end
    return condition
end

function lib.equal( got, expected )
    if got ~= expected then
        error( string.format( "got %q instead of %q", tostring( got ):sub( 1, 200 ), tostring( expected ):sub( 1, 200 ) ), 2 )
    end
end

-- Plugins use a fixed port for the proxy; the tests use another. A connection to `port` goes to `instead`.
local methods = getmetatable( socket.tcp() ).__index
local connect = methods.connect
function lib.redirect( port, instead )
    methods.connect = function( sock, host, to )
        if tonumber( to ) == port then to = instead end
        return connect( sock, host, to )
    end
end

-- Opens a connection in echo mode with these options of CONN.
function lib.echo_mode( proxy, device, options )
    local sock = socket.tcp()
    sock:settimeout( 20 )
    lib.check( sock:connect( "127.0.0.1", proxy ), "the proxy's port is closed" )
    lib.check( sock:receive( "*l" ):match( "^OK TOGGLEDBITS%-SOCKPROXY 1 %x+$" ), "unexpected greeting" )
    sock:send( string.format( "CONN 127.0.0.1:%d %s\n", device, options or "" ) )
    lib.check( sock:receive( "*l" ):match( "^OK CONN %x+$" ), "not connected" )
    return sock
end

-- A connect function as LuWS documents it for its option `connect`: it reads the greeting, then sends CONN with all options,
-- and connects directly if no proxy answers. Returns the function, and a table that says whether the proxy is used.
function lib.documented_connect( device, service, action )
    local used = { proxy = false }
    return function( ip, port )
        used.proxy = false
        local sock = socket.tcp()
        sock:settimeout( 5 )
        if sock:connect( "127.0.0.1", 2504 ) then
            local answer = sock:receive( "*l" )
            if answer and answer:match( "^OK TOGGLEDBITS%-SOCKPROXY" ) then
                sock:send( string.format( "CONN %s:%d NTFY=%d/%s/%s RTIM=0 PACE=0\n", ip, port, device, service, action ) )
                answer = sock:receive( "*l" )
                if answer and answer:match( "^OK CONN" ) then
                    used.proxy = true
                    return sock
                end
            end
            sock:shutdown( "both" )
        end
        sock:close()
        sock = socket.tcp()
        sock:settimeout( 15 )
        if sock:connect( ip, port ) then return sock end
        sock:close()
        return nil, "Connection failed"
    end, used
end

-- Returns the script's arguments NAME=VALUE as a table, numbers as numbers.
function lib.arguments()
    local arguments = {}
    for _, word in ipairs( arg ) do
        local name, value = word:match( "^(%w+)=(.*)$" )
        arguments[name] = tonumber( value ) or value
    end
    return arguments
end

-- Checks that a function raises an error that matches the pattern.
function lib.fails( pattern, call, ... )
    local ok, why = pcall( call, ... )
    if ok or not tostring( why ):match( pattern ) then
        error( string.format( "%q instead of an error with %q", tostring( why ), pattern ), 2 )
    end
end

function lib.like( got, pattern )
    if not tostring( got ):match( pattern ) then
        error( string.format( "got %q instead of something like %q", tostring( got ):sub( 1, 200 ), pattern ), 2 )
    end
end

-- Loads `text` with `environment` as its global variables, in every version of Lua. Returns the function.
function lib.load_in( environment, text, name )
    if setfenv then return setfenv( assert( loadstring( text, name ) ), environment ) end -- luacheck: ignore 113
    return assert( load( text, name, "t", environment ) )
end

-- Checks that the libraries leave no new global variable.
local known = {}
-- LuaSocket 2, LuaSec before 0.6 and LuaBitOp create these themselves.
local MODULES = { socket = true, mime = true, ltn12 = true, ssl = true, bit = true }
for name in pairs( _G ) do known[name] = true end
function lib.no_new_globals()
    for name in pairs( _G ) do
        -- luup.call_delay calls functions by global names alone.
        local allowed = MODULES[name] or name:match( "^SockProxyClient_timer_%w+$" )
        if not known[name] and not allowed then
            error( "a new global: " .. name, 2 )
        end
    end
end

return lib
