-- A plugin that closes its connections while much is queued, with the proxy or without it: the remote receives every byte, and
-- then the end.
--
-- usage: lua5.1 closing.lua mode=proxy|direct NAME=VALUE..., in this directory; see tests/e2e/websocket/lua_clients.rs

local socket = require "socket"
local lib = require "lib"
local engine = require "engine"
local plugin = require "plugin"
local proxy = require "L_SockProxyClient"
local Digest = require "L_SockProxyDigest"
local Frames = require "L_SockProxyFrames"
local Transport = require "L_SockProxyTransport"

local at = lib.arguments()
local direct = at.mode == "direct"
local group, open = plugin.group, plugin.begin( proxy, at, direct )
proxy.defaults.log = function() end
engine.provide( true )
local server = assert( socket.bind( "127.0.0.1", 0 ) )
server:settimeout( 0 )
local address = "127.0.0.1:" .. select( 2, server:getsockname() )

-- Accepts a connection, which is not read yet. For a WebSocket, answers the request; its frames are not masked.
local function accept( websocket )
    local peer
    engine.run_until( function()
        peer = peer or server:accept()
        return peer
    end, "a connection" )
    peer:settimeout( 0 )
    if not websocket then return peer end
    local request = ""
    engine.run_until( function()
        local data, _, part = peer:receive( 8192 )
        request = request .. ( data or part )
        return request:find "\r\n\r\n"
    end, "the request" )
    local key = request:match "Sec%-WebSocket%-Key: (%S+)"
    peer:send( "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        .. Digest.base64( Digest.sha1( key .. "258EAFA5-E914-47DA-95CA-C5AB0DC85B11" ) ) .. "\r\n\r\n" )
    return peer
end

-- Opens a connection. Returns it, and the remote's socket.
local function opened( target, options )
    options.timeout = 0
    local conn = open( target, options )
    local peer = accept( target:match "^ws" )
    engine.run_until( function() return conn:is_open() end, "the connection" )
    return conn, peer
end

-- Reads until the stream ends, or until `done( text )` is true, while only Luup's timers poll. Returns all bytes.
local function read_all( peer, done )
    local pieces, stop = {}, socket.gettime() + 60
    while true do
        local data, why, part = peer:receive( 65536 )
        pieces[#pieces + 1] = data or part
        if why == "closed" or done and done( data or part ) then return table.concat( pieces ) end
        if why then
            lib.check( socket.gettime() < stop, "no end of the stream" )
            socket.select( { peer }, nil, math.min( engine.fire(), 0.05 ) )
            engine.serve( 0 )
        end
    end
end

-- Returns numbered lines, so that a piece that is lost or comes twice is seen.
local function numbered( count, length )
    local lines = {}
    for index = 1, count do
        local word = index .. " "
        lines[index] = string.rep( word, math.ceil( length / #word ) )
    end
    return lines
end

-- Streams. The one message is far longer than the buffers of the kernel, the other fits into them.
for _, count in ipairs { 1, 6000 } do
    local text = table.concat( numbered( count, 4000 ), "\n" ) .. "\n"
    local conn, peer = opened( address, { FRAM = "RAW" } )
    lib.equal( conn:binary( text ), true )
    lib.equal( conn:is_queued(), count > 1 )
    conn:close()
    lib.check( read_all( peer ) == text, "bytes are lost" )
    -- The end has come by a shutdown: the socket waits for the remote's end.
    if direct then lib.equal( Transport.close_lingering(), true ) end
    -- The remote may go on.
    peer:send( "bye" )
    peer:close()
    engine.run_until( function() return not Transport.close_lingering() end, "the socket's end" )
end

-- A remote that has ended its own stream, and reads on.
local conn, peer = opened( address, { FRAM = "RAW" } )
local text = string.rep( "0123456789abcdef", 1500000 )
conn:binary( text )
peer:shutdown( "send" )
conn:close()
lib.check( read_all( peer ) == text, "bytes are lost" )
peer:close()

-- A kept stream: DROP, which ends it, comes last.
if not direct then
    local pid = proxy.secret()
    conn, peer = opened( address, {
        FRAM = "RAW", KEEP = 300, notify = engine.notify { device = 123, action = "HandleReceive", pid = pid },
    } )
    conn:binary( text )
    lib.equal( conn:is_queued(), true )
    conn:close()
    lib.check( read_all( peer ) == text, "bytes are lost" )
    peer:close()
    lib.equal( select( 2, proxy.attach( pid, { FRAM = "RAW" } ) ), "No such pid" )
end

-- WebSockets: messages until the queue is full, and the closing handshake.
for _, framing in ipairs { "MESG", "LINE", "RAW" } do
    conn, peer = opened( "ws://" .. address .. "/", { FRAM = framing, MASK = false } )
    local messages, sent = numbered( 1000, 50000 ), 0
    repeat
        local ok = framing == "RAW" and conn:binary( messages[sent + 1] ) or framing ~= "RAW" and conn:text( messages[sent + 1] )
        if ok then sent = sent + 1 end
    until not ok
    lib.equal( conn:is_queued(), true )
    lib.equal( conn:close(), true )
    local buffer, decoder, parts, finished = Frames.buffer(), Frames.decoder(), {}, nil
    read_all( peer, function( bytes )
        buffer:append( bytes )
        while not finished do
            local verb, body, code = decoder:next( buffer )
            if not verb then
                lib.equal( body, nil )
                return false
            end
            if verb == "CLOS" then finished = code else parts[#parts + 1] = body end
        end
        return true
    end )
    -- In RAW, messages have no boundaries on the way to the proxy.
    lib.check( table.concat( parts ) == table.concat( messages, "", 1, sent ), "messages are lost" )
    lib.equal( finished, framing == "MESG" and 1000 or 1001 )
    peer:send( Frames.encode( Frames.OPCODES.CLOS, "", true ) )
    peer:close()
end

-- A script of its own, without timers: loop() sends the rest.
engine.withdraw()
lib.equal( next( group ), nil )
conn, peer = proxy.open( address, { group = group, FRAM = "RAW" } ), accept()
conn:binary( text )
conn:close()
local received = 0
lib.equal( proxy.loop( group, function()
    repeat
        local data, why, part = peer:receive( 65536 )
        received = received + #( data or part )
    until why
end, 60 ), true )
peer:settimeout( 30 )
received = received + #peer:receive( "*a" )
lib.equal( received, #text )

lib.no_new_globals()
print "ok"
