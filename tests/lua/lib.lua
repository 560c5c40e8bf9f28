-- What the scripts beside this one share. Not a script.

local socket = require "socket"

local lib = {}

-- The client libraries, as they stand in the sources.
package.path = "../../luup/client/?.lua;../../luup/compat/?.lua;" .. package.path

-- Ends the script with a reason unless `condition` holds.
function lib.check( condition, why )
    if not condition then error( why or "wrong", 2 ) end
    return condition
end

function lib.equal( got, expected )
    if got ~= expected then
        error( string.format( "got %q instead of %q", tostring( got ):sub( 1, 200 ), tostring( expected ):sub( 1, 200 ) ), 2 )
    end
end

-- Plugins know the proxy's port by heart; here it is another one. Whoever connects to `port` reaches `instead`.
local methods = getmetatable( socket.tcp() ).__index
local connect = methods.connect
function lib.redirect( port, instead )
    methods.connect = function( sock, host, to )
        if tonumber( to ) == port then to = instead end
        return connect( sock, host, to )
    end
end

-- A connection in echo mode, with the options given.
function lib.echo_mode( proxy, device, options )
    local sock = socket.tcp()
    sock:settimeout( 20 )
    lib.check( sock:connect( "127.0.0.1", proxy ), "nobody listens on the proxy's port" )
    lib.check( sock:receive( "*l" ):match( "^OK TOGGLEDBITS%-SOCKPROXY 1 %x+$" ), "strange greeting" )
    sock:send( string.format( "CONN 127.0.0.1:%d %s\n", device, options or "" ) )
    lib.check( sock:receive( "*l" ):match( "^OK CONN %x+$" ), "not connected" )
    return sock
end

-- A connect function as LuWS documents it for its option `connect`: it reads the greeting, then says CONN with everything
-- in it, and connects by itself where there is no proxy. The table says whether the proxy is used.
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

-- The arguments NAME=VALUE of the script, numbers as numbers.
function lib.arguments()
    local arguments = {}
    for _, word in ipairs( arg ) do
        local name, value = word:match( "^(%w+)=(.*)$" )
        arguments[name] = tonumber( value ) or value
    end
    return arguments
end

-- What a function gives, and that it raises no error but this one.
function lib.fails( pattern, call, ... )
    local sound, why = pcall( call, ... )
    if sound or not tostring( why ):match( pattern ) then
        error( string.format( "%q instead of an error with %q", tostring( why ), pattern ), 2 )
    end
end

function lib.like( got, pattern )
    if not tostring( got ):match( pattern ) then
        error( string.format( "got %q instead of something like %q", tostring( got ):sub( 1, 200 ), pattern ), 2 )
    end
end

-- Everything that the script leaves in the global table is a mistake of a library.
local known = {}
for name in pairs( _G ) do known[name] = true end
function lib.no_new_globals()
    for name in pairs( _G ) do
        -- LuaSocket 2 leaves these itself.
        if not known[name] and name ~= "socket" and name ~= "mime" and name ~= "ltn12" then
            error( "a global that was not there: " .. name, 2 )
        end
    end
end

return lib
