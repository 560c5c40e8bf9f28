-- A connect function as LuWS documents it for its option `connect`: it reads the greeting, sends CONN with all options, and
-- reports whether the proxy is used.
--
-- usage: lua5.1 luws_connect.lua PROXY_PORT DEVICE_PORT CLOSED_PORT, in this directory

local socket = require "socket"
local lib = require "lib"

local connect, used = lib.documented_connect( 123, "urn:example-com:serviceId:Example1", "HandleReceive" )

local function talk( sock )
    lib.check( sock, "no connection" )
    sock:send( "GET /ws HTTP/1.1\r\nUpgrade: websocket\r\n\r\n" )
    lib.equal( sock:receive( "*l" ), "GET /ws HTTP/1.1" )
    lib.equal( sock:receive( "*l" ), "Upgrade: websocket" )
    lib.equal( sock:receive( "*l" ), "" )
    -- The following bytes are binary, and are read in pieces with a timeout of zero, as wsreceive() does.
    local frames = string.char( 0x81, 0x7e, 0, 200 ) .. string.rep( "\0\255", 100 )
    sock:send( frames )
    sock:settimeout( 0 )
    local got = ""
    while #got < #frames do
        socket.select( { sock }, nil, 20 )
        local whole, err, part = sock:receive( 2048 )
        lib.check( whole or err == "timeout", err )
        got = got .. ( whole or part )
    end
    lib.equal( got, frames )
    sock:close()
end

lib.redirect( 2504, arg[1] )
talk( connect( "127.0.0.1", arg[2] ) )
lib.check( used.proxy, "the proxy was not used" )
lib.check( not connect( "127.0.0.1", arg[3] ), "connected to a closed port" )
lib.redirect( 2504, arg[3] )
talk( connect( "127.0.0.1", arg[2] ) )
lib.check( not used.proxy, "the function reports a proxy although none runs" )
print "ok"
