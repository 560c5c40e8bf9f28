-- What the scripts beside this one share. Not a script.

local socket = require "socket"

local lib = {}

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

return lib
