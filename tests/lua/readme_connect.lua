-- The connect function as the README of the Lua daemon prints it, verbatim: plugins were written from it.
--
-- It takes the greeting for the reply to its CONN, does not recognise it, and connects directly. That must keep working, and
-- the proxy must close the connection that the function abandons.
--
-- usage: lua5.1 readme_connect.lua PROXY_PORT DEVICE_PORT CLOSED_PORT, in this directory

local lib = require "lib"
lib.redirect( 2504, arg[1] )

function connect( ip, port )
    local socket = require "socket"
    local sock = socket.tcp()
    sock:settimeout( 10 )
    -- Try proxy connection first
    if sock:connect( "127.0.0.1", 2504 ) then
        -- Accepted connection, connect proxy to target and go into echo mode
        sock:send( string.format( "CONN %s:%s\n", ip, port ) )
        local ans = sock:receive( "*l" )
        if ans:match( "^OK CONN" ) then
            -- Socket connected to proxy, and proxy is connected to remote in echo mode
            return true, sock
        end
        -- Unhappy handshake; close and get new socket for direct connection
        sock:shutdown("both")
        sock:close()
        sock = socket.tcp()
    end
    -- Connect directly to target
    if sock:connect( ip, port ) then
        return true, sock
    end
    sock:close()
    return nil -- failed to connect
end

local ok, sock = connect( "127.0.0.1", arg[2] )
lib.check( ok and sock, "no connection" )
lib.check( sock:send( "hello\n" ) == 6, "not sent" )
lib.equal( sock:receive( "*l" ), "hello" )
sock:close()

-- Without a proxy.
lib.redirect( 2504, arg[3] )
ok, sock = connect( "127.0.0.1", arg[2] )
lib.check( ok and sock, "no connection without the proxy" )
sock:send( "hello again\n" )
lib.equal( sock:receive( "*l" ), "hello again" )
sock:close()
print "ok"
