-- All ways of reading of LuaSocket, through the proxy.
--
-- usage: lua5.1 receive.lua PROXY_PORT DEVICE_PORT, in this directory

local socket = require "socket"
local lib = require "lib"

local sock = lib.echo_mode( arg[1], arg[2] )

-- Lines: LuaSocket drops the CR.
sock:send( "one\ntwo\r\n\nfour\n" )
for _, line in ipairs { "one", "two", "", "four" } do lib.equal( sock:receive( "*l" ), line ) end

-- A number of bytes.
sock:send( "0123456789" )
lib.equal( sock:receive( 4 ), "0123" )
lib.equal( sock:receive( 6 ), "456789" )

-- With a prefix.
sock:send( "world" )
lib.equal( sock:receive( 10, "hello" ), "helloworld" )

-- With a timeout of zero: what has arrived, and the rest later.
sock:settimeout( 0 )
local whole, err, part = sock:receive( 5 )
lib.equal( whole, nil )
lib.equal( err, "timeout" )
lib.equal( part, "" )
sock:send( "abc" )
local got = ""
while #got < 3 do
    lib.check( #socket.select( { sock }, nil, 20 ) == 1, "nothing arrives" )
    whole, err, part = sock:receive( 5 )
    lib.equal( whole, nil )
    lib.equal( err, "timeout" )
    got = got .. part
end
lib.equal( got, "abc" )
whole, err, part = sock:receive( "*l" )
lib.equal( err, "timeout" )
lib.equal( part, "" )

-- Half a line, then the other half.
sock:send( "half a " )
socket.select( { sock }, nil, 20 )
local pending = ""
repeat
    whole, err, part = sock:receive( "*l" )
    pending = pending .. ( whole or part )
    if pending == "half a " then sock:send( "line\n" ) end
    if not whole then socket.select( { sock }, nil, 20 ) end
until whole
lib.equal( pending, "half a line" )

-- The end: every byte before it, then "closed".
sock:settimeout( 20 )
sock:send( "last words" )
sock:shutdown( "send" )
lib.equal( sock:receive( "*a" ), "last words" )
whole, err = sock:receive( "*l" )
lib.equal( whole, nil )
lib.equal( err, "closed" )
sock:close()
print "ok"
