-- A plugin's requests and replies in setup mode, read as lines.
--
-- usage: lua5.1 setup_mode.lua PROXY_PORT DEVICE_PORT CLOSED_PORT, in this directory

local socket = require "socket"
local lib = require "lib"

local function open()
    local sock = socket.tcp()
    sock:settimeout( 20 )
    lib.check( sock:connect( "127.0.0.1", arg[1] ), "the proxy's port is closed" )
    return sock, sock:receive( "*l" ):match( "^OK TOGGLEDBITS%-SOCKPROXY 1 (%x+)$" )
end

local function ask( sock, line )
    sock:send( line .. "\n" )
    return sock:receive( "*l" )
end

local sock, pid = open()
lib.check( pid, "no pid" )
lib.check( ask( sock, "CAPA" ):match( "^OK CAPA BLKS RTIM NTFY CONN UDP" ), "unexpected CAPA" )
lib.check( tonumber( ask( sock, "BILD" ):match( "^OK (%d+)$" ) ) > 23068, "unexpected BILD" )
lib.equal( ask( sock, "RTIM 5000" ), "OK RTIM" )
lib.equal( ask( sock, "PACE 1" ), "OK PACE" )
lib.equal( ask( sock, "NTFY -1 svc act mine" ), "OK NTFY" )
lib.equal( ask( sock, "CONN 127.0.0.1:" .. arg[2] ), "OK CONN mine" )
lib.equal( ask( sock, "STAT" ), "STAT" )
sock:close()

sock = open()
lib.check( ask( sock, "CONN 127.0.0.1:" .. arg[3] ):match( "^ERR CONN %w+" ), "connected to a closed port" )
lib.equal( select( 2, sock:receive( "*l" ) ), "closed" )
sock:close()

sock = open()
lib.equal( ask( sock, "QUIT" ), "OK QUIT" )
lib.equal( select( 2, sock:receive( "*l" ) ), "closed" )
sock:close()
print "ok"
