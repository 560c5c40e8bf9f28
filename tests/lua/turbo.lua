-- A plugin written for turbo.websocket's client, with L_SockProxyTurbo: each method, argument, callback and error of turbo's
-- documentation.
--
-- usage: lua5.1 turbo.lua mode=proxy|direct NAME=VALUE..., in this directory; see tests/e2e/websocket/lua_clients.rs

local socket = require "socket"
local lib = require "lib"
local engine = require "engine"
local Headers = require "L_SockProxyHeaders"

local at = lib.arguments()
engine.listen( at.luup )
-- Without the proxy, nothing listens at its port, and Luup's timers poll.
local direct = at.mode == "direct"
local port = direct and at.closed or at.proxy
if direct then engine.provide( true ) end

-- The plugin changes this line, and adds the action below.
local turbo = require( "L_SockProxyTurbo" ).with {
    notify = engine.notify { device = 123, action = "HandleReceive" },
    port = port, PACE = 0, direct = direct, directory = at.directory, patience = 30, connect_timeout = 30,
}
function engine.actions.HandleReceive( device, parameters )
    lib.equal( device, 123 )
    turbo.handle( parameters.Pid )
end
local errors = turbo.websocket.errors
local plain, secure = "ws://127.0.0.1:" .. at.server, "wss://127.0.0.1:" .. at.secure

-- All callbacks of turbo's example put their events into one queue. A test's own callback is called in addition.
local events = engine.queue()
local function client( address, kwargs )
    kwargs = kwargs or {}
    local own = {}
    for _, name in ipairs { "on_connect", "on_message", "on_close", "on_error" } do
        own[name] = kwargs[name]
        kwargs[name] = function( self, ... )
            local words = { name:sub( 4 ) }
            for index = 1, select( "#", ... ) do words[#words + 1] = tostring( ( select( index, ... ) ) ) end
            events.put( table.concat( words, " " ) )
            if own[name] then own[name]( self, ... ) end
        end
    end
    return turbo.websocket.WebSocketClient( address, kwargs )
end
local function connected( address, kwargs )
    local ws = client( address, kwargs )
    lib.equal( ws:closed(), nil )
    lib.equal( events.next(), "connect" )
    return ws
end
local function closes( ws )
    ws:close()
    lib.equal( ws:closed(), true )
    lib.equal( events.next(), "close" )
end

-- turbo's example: on_connect writes, on_message closes, on_close is called.
client( plain .. "/ws", {
    on_connect = function( self ) self:write_message( "Hello World!" ) end,
    on_message = function( self ) self:close() end,
} )
for _, expected in ipairs { "connect", "message Hello World!", "close" } do lib.equal( events.next(), expected ) end

-- write_message: strings, bytes, tables as JSON; an error after the close.
local ws = connected( plain )
ws:write_message( "gr\195\188n" )
lib.equal( events.next(), "message gr\195\188n" )
ws:write_message( "\255\0", true )
lib.equal( events.next(), "message \255\0" )
ws:write_message { id = 1, type = 'a "b"\n\1', list = { 1.5, true, {} }, nested = { x = "y" } }
lib.equal( events.next(), 'message {"id":1,"list":[1.5,true,[]],"nested":{"x":"y"},"type":"a \\"b\\"\\n\\u0001"}' )
lib.fails( "cannot encode a function", ws.write_message, ws, { print } )
lib.fails( "no such number", ws.write_message, ws, { 1 / 0 } )
local cycle = {}
cycle[1] = cycle
lib.fails( "nested too deep", ws.write_message, ws, cycle )
ws:write_message( "pieces a bc def" )
lib.equal( events.next(), "message abcdef" )
-- ping: the callback gets the pong, with or without its argument.
local pongs = engine.queue()
ws:ping( "one", function( ... ) pongs.put( table.concat( { ... }, "|" ) ) end )
lib.equal( pongs.next(), "one" )
ws:ping( "two", function( ... ) pongs.put( table.concat( { ... }, "|" ) ) end, "argument" )
lib.equal( pongs.next(), "argument|two" )
ws:ping()
ws:write_message( "ping you" )
lib.equal( events.next(), "message ponged you" )
closes( ws )
ws:close()
lib.fails( "has been closed", ws.write_message, ws, "late" )
lib.fails( "has been closed", ws.ping, ws, "late" )
-- Before on_connect nothing can be sent. A connection that is closed before it opens has no on_close.
ws = client( plain )
lib.fails( "not open yet", ws.write_message, ws, "early" )
ws:close()
lib.equal( ws:closed(), true )
-- on_ping replaces the automatic answer.
ws = connected( plain, { on_ping = function( self, data ) self:pong( data:upper() ) end } )
ws:write_message( "ping loud" )
lib.equal( events.next(), "message ponged LOUD" )
closes( ws )

-- on_close, after a closing handshake and without one.
for _, command in ipairs { "close", "close 1000 bye", "vanish" } do
    ws = connected( plain )
    ws:write_message( command )
    lib.equal( events.next(), "close" )
    lib.equal( ws:closed(), true )
end
-- A violation of the protocol: on_error, then on_close.
ws = connected( plain )
ws:write_message( "reserved" )
lib.like( events.next(), "^error " .. ( "%s" ):format( errors.WEBSOCKET_PROTOCOL_ERROR ):gsub( "%-", "%%-" ) .. " " )
lib.equal( events.next(), "close" )
-- turbo does not check whether a text is UTF-8, nor whether a frame is masked. LENI = false does.
for command, message in pairs { ["hex 81054772fcdf65"] = "Gr\252\223e", ["hex 8182010203046a6b"] = "ki" } do
    ws = connected( plain )
    ws:write_message( command )
    lib.equal( events.next(), "message " .. message )
    closes( ws )
    ws = connected( plain, { LENI = false } )
    ws:write_message( command )
    lib.like( events.next(), "^error %-16 " )
    lib.equal( events.next(), "close" )
end
ws = connected( plain, { max_buffer_size = 1000 } )
ws:write_message( "binary 1001" )
lib.like( events.next(), "^error %-16 " )
lib.equal( events.next(), "close" )
ws = connected( plain )
ws:write_message( "binary 1000000" )
lib.equal( events.next(), "message " .. string.rep( "\7", 1000000 ) )
closes( ws )

-- Every error by its number. on_close is not called for a connection that never opened.
local function error_of( address, kwargs )
    client( address, kwargs )
    local code, reason = events.next():match( "^error (%-?%d+) (.*)$" )
    for name, number in pairs( errors ) do
        if number == tonumber( code ) then return name, reason end
    end
end
local mute = assert( socket.bind( "127.0.0.1", 0 ) )
local silent = "ws://127.0.0.1:" .. select( 2, mute:getsockname() )
for _, case in ipairs {
    { "INVALID_URL", "nothing" },
    { "INVALID_URL", "ws://:x/" },
    { "INVALID_SCHEMA", "http://127.0.0.1/" },
    { "COULD_NOT_CONNECT", "ws://127.0.0.1:" .. at.closed },
    { "COULD_NOT_CONNECT", plain, { port = at.closed, direct = false } },
    -- A program that is no proxy.
    { "COULD_NOT_CONNECT", plain, { port = select( 2, mute:getsockname() ), patience = 0.2, direct = false } },
    { "PARSE_ERROR_HEADERS", plain .. "/raw/no-status" },
    { "CONNECT_TIMEOUT", ( silent:gsub( "^ws", "wss" ) ), { connect_timeout = 0.2 } },
    { "REQUEST_TIMEOUT", silent, { request_timeout = 0.2 } },
    { "SOCKET_ERROR", plain .. "/raw/hung-up" },
    { "SOCKET_ERROR", plain, { XXXX = 1 } },
    { "SSL_ERROR", secure },
    { "REDIRECT_MAX", plain .. "/moved/" .. at.server .. "/there", { max_redirects = 0 } },
    { "BAD_HTTP_STATUS", plain .. "/moved/" .. at.server .. "/there", { allow_redirects = false } },
    { "BAD_HTTP_STATUS", plain .. "/status/403" },
    { "WEBSOCKET_PROTOCOL_ERROR", plain .. "/raw/wrong-accept" },
} do
    local began = socket.gettime()
    local name, reason = error_of( case[2], case[3] )
    -- turbo's own limits are 20 and 60 seconds.
    lib.check( socket.gettime() - began < 15, case[1] .. " takes too long" )
    if name ~= case[1] then error( string.format( "%s is %s %s, not %s", case[2], tostring( name ), tostring( reason ), case[1] ) ) end
end
local count = 0
for _ in pairs( errors ) do count = count + 1 end
lib.equal( count, 16 )
-- A server's own close frame is no violation, whatever its code: only the proxy's words are. Each reason in its source is known.
for _, code in ipairs { 1002, 1007, 1009 } do
    ws = connected( plain )
    ws:write_message( "close " .. code .. " your fault" )
    lib.equal( events.next(), "close" )
end
local is_violation, reasons = require( "L_SockProxyTurboStream" ).is_violation, 0
for _, name in ipairs { "close", "frame", "receiver" } do
    local file = assert( io.open( "../../src/websocket/" .. name .. ".rs" ) )
    -- Without the tests at the end of the file.
    local text = file:read( "*a" ):gsub( "#%[cfg%(test%)%].*$", "" )
    file:close()
    for _, pattern in ipairs { 'protocol_error%("([^"]+)"%)', 'reason: "([^"]+)"' } do
        for reason in text:gmatch( pattern ) do
            reasons = reasons + 1
            lib.check( is_violation( 1002, reason ), reason )
        end
    end
end
lib.check( reasons >= 10, reasons )
-- The default User-Agent, and cookies as a table.
ws = connected( plain, { cookie = { one = 1, two = "b" } } )
ws:write_message( "head" )
local said_now = events.next()
lib.check( said_now:find( "\nUser-Agent: Turbo Client v", 1, true ), said_now )
lib.check( said_now:find( "\nCookie: one=1; two=b", 1, true ), said_now )
closes( ws )
lib.equal( #events, 0 )
-- A keyword argument that does not exist is logged; turbo ignores it.
local lines = {}
ws = connected( plain, { on_mesage = function() end, log = function( words ) lines[#lines + 1] = words end } )
lib.equal( table.concat( lines, ";" ), "turbo.websocket: no such keyword argument: on_mesage" )
closes( ws )
-- CALLBACK_ERROR for each callback, and for the callback of ping.
for _, name in ipairs { "modify_headers", "on_headers", "on_connect", "on_message", "on_ping", "ping" } do
    local function broken() error( "oops in " .. name ) end
    local kwargs = { [name] = broken }
    if name == "on_message" or name == "on_ping" then
        kwargs.on_connect = function( self ) self:write_message( "ping x" ) end
    elseif name == "ping" then
        kwargs.on_connect = function( self ) self:ping( "x", broken ) end
    end
    ws = client( plain, kwargs )
    local said
    repeat said = events.next() until said:match( "^error" )
    lib.like( said, '^error %-14 error in callback "' .. name .. '": .*oops in ' .. name )
    if name ~= "modify_headers" then lib.equal( events.next(), "close" ) end
    lib.equal( ws:closed(), true )
end
ws = connected( plain, { on_close = function() error "oops" end } )
ws:close()
lib.equal( events.next(), "close" )
lib.like( events.next(), '^error %-14 error in callback "on_close"' )
lib.equal( #events, 0 )

-- Arguments of the request.
local shown
ws = connected( plain .. "/path", {
    params = { b = "2 &", a = 1 }, cookie = "c=d; e=f", auth_username = "me", auth_password = "secret", user_agent = "Lua plugin",
    websocket_protocol = "chat", body = "ignored",
    modify_headers = function( self, headers )
        lib.check( getmetatable( self ) == getmetatable( ws or self ) )
        shown = tostring( headers )
        lib.equal( headers:get( "cookie" ), "c=d; e=f" )
        headers:add( "X-Mine", "1, 2" )
        headers:add( "X-Twice", "a" )
        headers:add( "X-Twice", "b" )
        lib.equal( table.concat( ( headers:get "x-twice" ), "," ), "a,b" )
        headers:set( "Host", "elsewhere" )
        headers:add( "X-Gone", "x" )
        headers:remove( "x-gone" )
        lib.equal( headers:get "X-Gone", nil )
        headers:set( "Sec-WebSocket-Key", "not mine to set" )
    end,
} )
lib.like( shown, "^Host: 127.0.0.1:" .. at.server .. "\r\nUser%-Agent: Lua plugin\r\n" )
ws:write_message( "head" )
local head = events.next()
for _, line in ipairs {
    "GET /path?a=1&b=2%20%26 HTTP/1.1", "Cookie: c=d; e=f", "Authorization: Basic bWU6c2VjcmV0", "User-Agent: Lua plugin",
    "Sec-WebSocket-Protocol: chat", "X-Mine: 1, 2", "X-Twice: a", "X-Twice: b", "Host: elsewhere",
} do
    lib.check( head:find( line, 1, true ), line .. " in " .. head )
end
lib.check( not head:find( "not mine", 1, true ) and not head:find( "X-Gone", 1, true ) )
closes( ws )
lib.equal( Headers.with_query( "ws://h/?x=y", { a = "b" } ), "ws://h/?x=y&a=b" )
ws = connected( plain .. "/sub/chat", { websocket_protocol = "chat" } )
closes( ws )
ws = connected( plain .. "/moved/" .. at.server .. "/there" )
closes( ws )
-- on_headers comes first, and may close.
local reviewed
ws = connected( plain, { on_headers = function( _, headers )
    reviewed = headers
    lib.equal( #events, 0 )
end } )
lib.equal( reviewed:get_status_code(), 101 )
lib.equal( reviewed:get_version(), "HTTP/1.1" )
lib.equal( reviewed:get( "x-server" ), "scripted" )
closes( ws )
client( plain, { on_headers = function( self ) self:close() end } )
lib.equal( events.next(), "close" )
-- TLS: verify_ca, ca_path, cert_file and priv_file, as arguments and within ssl_options.
for _, kwargs in ipairs {
    { verify_ca = false }, { ca_path = "ca.pem" }, { ca_path = "/etc/ssl/ca.pem", verify_ca = true },
    { ssl_options = { verify_ca = false } }, { PINS = at.pin },
} do
    ws = connected( secure, kwargs )
    closes( ws )
end
lib.equal( error_of( secure, { ca_path = "other-ca.pem" } ), "SSL_ERROR" )
local private = "wss://127.0.0.1:" .. at.private
lib.equal( error_of( private, { verify_ca = false } ), "SSL_ERROR" )
ws = connected( private, { verify_ca = false, cert_file = "/etc/client.pem", priv_file = "client.key" } )
closes( ws )

-- Kept over a Luup reload: the client after it resumes the connection of the client before it.
local pid, seen = require( "L_SockProxyClient" ).secret(), 0
local function kept()
    return {
        KEEP = 300, seen = seen, on_seen = function( _, now ) seen = now end,
        notify = engine.notify { device = 123, action = "HandleReceive", pid = pid },
    }
end
ws = connected( plain, kept() )
ws:write_message( "before" )
lib.equal( events.next(), "message before" )
if not direct then
    ws.conn:leave()
    ws = client( plain, kept() )
    lib.equal( table.remove( events, 1 ), "connect" )
    lib.equal( ws.conn.kept, true )
    ws:write_message( "after" )
    lib.equal( events.next(), "message after" )
end
closes( ws )

-- The IO loop: in Luup, start() runs the added functions and returns. In a script outside of Luup, it serves the
-- connections.
engine.provide()
local ran
turbo.ioloop.instance():add_callback( function( word ) ran = word end, "ran" ):start()
lib.equal( ran, "ran" )
engine.withdraw()
local alone = require( "L_SockProxyTurbo" ).with { port = port, PACE = 0, direct = direct, patience = 30 }
local heard = {}
alone.ioloop.instance():add_callback( function()
    alone.websocket.WebSocketClient( plain, {
        on_connect = function( self ) self:write_message( "one" ) end,
        on_message = function( self, msg )
            heard[#heard + 1] = msg
            self:close()
        end,
        on_close = function()
            heard[#heard + 1] = "closed"
            alone.ioloop.instance():add_callback( function() heard[#heard + 1] = "added" end )
        end,
    } )
end ):start()
lib.equal( table.concat( heard, " " ), "one closed added" )
-- close() ends the loop while a connection is open.
local open
alone.ioloop.instance():add_callback( function()
    open = alone.websocket.WebSocketClient:new( plain, { on_connect = function() alone.ioloop.instance():close() end } )
end ):start()
lib.equal( open:closed(), nil )
open:close()
alone.ioloop.instance():start()
lib.equal( open:closed(), true )

lib.no_new_globals()
print "ok"
