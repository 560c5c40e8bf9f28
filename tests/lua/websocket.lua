-- How a plugin speaks WebSocket through the proxy: MESG framing with what LuaSocket has, blocking and at a timeout of zero.
--
-- usage: lua5.1 websocket.lua PROXY_PORT SERVER_PORT, in this directory

local socket = require "socket"
local lib = require "lib"

local sock = socket.tcp()
sock:settimeout( 20 )
lib.check( sock:connect( "127.0.0.1", arg[1] ), "nobody listens on the proxy's port" )
lib.check( sock:receive( "*l" ):match( "^OK TOGGLEDBITS%-SOCKPROXY 1 %x+$" ), "strange greeting" )
sock:send( string.format( "CONN ws://127.0.0.1:%d/echo\n", arg[2] ) )
lib.check( sock:receive( "*l" ):match( "^OK CONN %x+$" ), "not connected" )

-- Joined, since string.format of Lua 5.1 ends at a zero byte.
local function say( verb, body )
    sock:send( verb .. " " .. #body .. "\n" .. body )
end

-- Blocking: a line, then so many bytes.
local function hear()
    local header = lib.check( sock:receive( "*l" ) )
    local verb, length = header:match( "^(.-) (%d+)$" )
    length = tonumber( length )
    -- Some versions of LuaSocket wait for ever for no bytes at all.
    return verb, length > 0 and lib.check( sock:receive( length ) ) or ""
end

say( "TEXT", "hello" )
local verb, body = hear()
lib.equal( verb .. " " .. body, "TEXT hello" )
say( "BINA", "\0\1\n\255" )
verb, body = hear()
lib.equal( verb .. " " .. body, "BINA \0\1\n\255" )
say( "TEXT", "" )
verb, body = hear()
lib.equal( verb .. " " .. body, "TEXT " )

-- At a timeout of zero, as in an action of Luup: takes what there is, and gives a message when it is whole.
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
say( "TEXT", long )
say( "TEXT", "after" )
say( "PING", "there?" )
local got = {}
while #got < 3 do
    local verb, body = poll()
    if verb then
        got[#got + 1] = verb .. " " .. body
    else
        lib.equal( body, "timeout" )
        lib.check( #socket.select( { sock }, nil, 20 ) == 1, "nothing comes" )
    end
end
lib.equal( got[1], "TEXT " .. long )
lib.equal( got[2], "TEXT after" )
lib.equal( got[3], "PONG there?" )

-- The end: the answer to our own, then "closed".
sock:settimeout( 20 )
say( "CLOS 1000", "bye" )
verb, body = hear()
lib.equal( verb .. " " .. body, "CLOS 1000 bye" )
lib.equal( select( 2, sock:receive( "*l" ) ), "closed" )
sock:close()
print "ok"
