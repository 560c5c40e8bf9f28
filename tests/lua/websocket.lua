-- A plugin that speaks WebSocket through the proxy: MESG framing with LuaSocket alone, blocking and with a timeout of zero.
--
-- usage: lua5.1 websocket.lua PROXY_PORT SERVER_PORT, in this directory

local socket = require "socket"
local lib = require "lib"

local sock = socket.tcp()
sock:settimeout( 20 )
lib.check( sock:connect( "127.0.0.1", arg[1] ), "the proxy's port is closed" )
lib.check( sock:receive( "*l" ):match( "^OK TOGGLEDBITS%-SOCKPROXY 1 %x+$" ), "unexpected greeting" )
sock:send( string.format( "CONN ws://127.0.0.1:%d/echo\n", arg[2] ) )
lib.check( sock:receive( "*l" ):match( "^OK CONN %x+$" ), "not connected" )

-- Concatenated, because string.format of Lua 5.1 stops at a zero byte.
local function send( verb, body )
    sock:send( verb .. " " .. #body .. "\n" .. body )
end

-- Blocking: reads a line, then so many bytes.
local function receive()
    local header = lib.check( sock:receive( "*l" ) )
    local verb, length = header:match( "^(.-) (%d+)$" )
    length = tonumber( length )
    -- Some versions of LuaSocket never return from a read of zero bytes.
    return verb, length > 0 and lib.check( sock:receive( length ) ) or ""
end

send( "TEXT", "hello" )
local verb, body = receive()
lib.equal( verb .. " " .. body, "TEXT hello" )
send( "BINA", "\0\1\n\255" )
verb, body = receive()
lib.equal( verb .. " " .. body, "BINA \0\1\n\255" )
send( "TEXT", "" )
verb, body = receive()
lib.equal( verb .. " " .. body, "TEXT " )

-- With a timeout of zero, as in an action of Luup: reads what has arrived, and returns a message when it is complete.
sock:settimeout( 0 )
local pending, wanted = "", nil
local function poll()
    while true do
        local whole, err, part
        if wanted then
            whole, err, part = sock:receive( wanted.length, pending )
        else
            whole, err, part = sock:receive( "*l", pending )
        end
        pending = whole and "" or part
        if not whole then return nil, err end
        if wanted then
            local verb = wanted.verb
            wanted = nil
            return verb, whole
        end
        local verb, length = whole:match( "^(.-) (%d+)$" )
        if length == "0" then return verb, "" end
        wanted = { verb = verb, length = tonumber( length ) }
    end
end

lib.equal( select( 2, poll() ), "timeout" )
local long = string.rep( "0123456789", 6000 )
send( "TEXT", long )
send( "TEXT", "after" )
send( "PING", "there?" )
local got = {}
while #got < 3 do
    local verb, body = poll()
    if verb then
        got[#got + 1] = verb .. " " .. body
    else
        lib.equal( body, "timeout" )
        lib.check( #socket.select( { sock }, nil, 20 ) == 1, "nothing arrives" )
    end
end
lib.equal( got[1], "TEXT " .. long )
lib.equal( got[2], "TEXT after" )
lib.equal( got[3], "PONG there?" )

-- The end: the answer to our close, then "closed".
sock:settimeout( 20 )
send( "CLOS 1000", "bye" )
verb, body = receive()
lib.equal( verb .. " " .. body, "CLOS 1000 bye" )
lib.equal( select( 2, sock:receive( "*l" ) ), "closed" )
sock:close()
print "ok"
