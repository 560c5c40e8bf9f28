-- A plugin written for verawebsockets, with L_SockProxyVeraWebSockets: each function, event and reason of its wiki.
--
-- usage: lua5.1 verawebsockets.lua mode=proxy|direct NAME=VALUE..., in this directory; see tests/e2e/websocket/lua_clients.rs

local socket = require "socket"
local lib = require "lib"
local engine = require "engine"

local at = lib.arguments()
engine.listen( at.luup )
-- Without the proxy, nothing listens at its port, and Luup's timers poll.
local direct = at.mode == "direct"
local port = direct and at.closed or at.proxy
if direct then engine.provide( true ) end
local logged = {}

-- The plugin changes this line, and adds the action below.
local vws = require( "L_SockProxyVeraWebSockets" ).with {
    notify = engine.notify { device = 123, action = "HandleReceive" },
    port = port, PACE = 0, direct = direct, directory = at.directory, patience = 30, RQTM = 60000, CTIM = 30000, log = function( words ) logged[#logged + 1] = words end,
}
function engine.actions.HandleReceive( device, parameters )
    lib.equal( device, 123 )
    vws.handle( parameters.Pid )
end

local CONNECTION_ERROR, ESTABLISHED, CLOSED, RECEIVE = 1, 3, 4, 8
local plain, secure = "ws://127.0.0.1:" .. at.server, "wss://127.0.0.1:" .. at.secure

-- Callbacks are global functions, given by name.
local events = engine.queue()
local function event( name )
    return function( ... ) events.put( table.concat( { name, ... }, "|" ) ) end
end
local names = { onError = event "error", onEstablished = event "established", onClosed = event "closed", onReceive = event "receive" }
for name, callback in pairs( names ) do rawset( _G, name, callback ) end
local handlers = {
    [CONNECTION_ERROR] = "onError", [ESTABLISHED] = "onEstablished", [CLOSED] = "onClosed", [RECEIVE] = "onReceive",
}

local wso
local function connect( path, ssl_settings, options, url )
    wso = vws.create( ( url or plain ) .. path, handlers, ssl_settings, false, options )
    lib.equal( select( "#", vws.connect( wso ) ), 0 )
    return events.next()
end

-- create, connect and the four events, without parameters where the wiki has none.
lib.equal( connect "/", "established" )
vws.connect( wso ) -- connected already: no effect
lib.equal( vws.send( wso, "hello" ), true )
lib.equal( events.next(), "receive|hello" )
vws.send( wso, "\0\255", true )
lib.equal( events.next(), "receive|\0\255" )
vws.send( wso, "pieces a bc def" )
lib.equal( events.next(), "receive|abcdef" )
vws.send( wso, "binary 1000000" )
lib.equal( events.next(), "receive|" .. string.rep( "\7", 1000000 ) )
-- Texts are not checked by libwebsockets, unless its user asks for it. It takes no masked frames for what they are.
vws.send( wso, "hex 81054772fcdf65" )
lib.equal( events.next(), "receive|Gr\252\223e" )
vws.send( wso, "close 1000 bye" )
lib.equal( events.next(), "closed" )
for command, options in pairs { ["hex 81054772fcdf65"] = { LENI = false }, ["hex 8182010203046a6b"] = {} } do
    lib.equal( connect( "/", nil, options ), "established" )
    vws.send( wso, command )
    lib.equal( events.next(), "closed" )
end
lib.equal( connect "/", "established" )
vws.close( wso )
lib.equal( events.next(), "closed" )
lib.equal( vws.send( wso, "late" ), nil )
lib.equal( vws.close( wso ), nil )
-- The same object connects again.
vws.connect( wso )
lib.equal( events.next(), "established" )
lib.equal( vws.close( wso, 4000, "over" ), true )
lib.equal( events.next(), "closed" )
vws.connect( wso )
lib.equal( events.next(), "established" )
vws.send( wso, "vanish" )
lib.equal( events.next(), "closed" )
-- Closed before it is open.
vws.connect( wso )
lib.equal( vws.close( wso ), true )
vws.connect( wso )
lib.equal( events.next(), "established" )
vws.close( wso )
lib.equal( events.next(), "closed" )

-- Event 1: verawebsockets' reason, then the proxy's error.
local closed = "ws://127.0.0.1:" .. at.closed
local mute = assert( socket.bind( "127.0.0.1", 0 ) )
local silent = "ws://127.0.0.1:" .. select( 2, mute:getsockname() )
for _, case in ipairs {
    { "Peer hung up|COULD_NOT_CONNECT", "", nil, closed },
    { "Peer hung up|SOCKET_ERROR", "/raw/hung-up" },
    { "lws_ssl_client_connect2 failed|SSL_ERROR", "/", nil, secure },
    { "HS: URI missing|PARSE_ERROR_HEADERS no HTTP", "/raw/no-status" },
    { "HS: Redirect code but no Location|BAD_HTTP_STATUS 302", "/raw/no-location" },
    { "HS: URI did not parse|INVALID_URL", "/raw/bad-location" },
    { "HS: URI did not parse|INVALID_SCHEMA", "", nil, "gopher://127.0.0.1" },
    { "HS: URI did not parse|INVALID_URL", "", nil, "nothing" },
    { "HS: URI did not parse|INVALID_URL", "", nil, "ws://:x/" },
    { "Peer hung up|COULD_NOT_CONNECT", "/moved/" .. at.closed .. "/" },
    { "HS: Redirect failed|REDIRECT_MAX", "/moved/" .. at.server .. "/", { RDIR = 0 } },
    { "HS: ws upgrade response not 101|BAD_HTTP_STATUS 200", "/raw/not-101" },
    { "HS: ws upgrade response not 101|BAD_HTTP_STATUS 403 Because", "/status/403" },
    { "HS: ACCEPT missing|WEBSOCKET_PROTOCOL_ERROR", "/raw/no-accept" },
    { "HS: Accept hash wrong|WEBSOCKET_PROTOCOL_ERROR", "/raw/wrong-accept" },
    { "HS: UPGRADE missing|WEBSOCKET_PROTOCOL_ERROR", "/raw/no-upgrade" },
    { "HS: Upgrade to something other than websocket|WEBSOCKET_PROTOCOL_ERROR", "/raw/other-upgrade" },
    { "HS: CONNECTION missing|WEBSOCKET_PROTOCOL_ERROR", "/raw/no-connection" },
    { "HS: Cannot match protocol|WEBSOCKET_PROTOCOL_ERROR", "/raw/subprotocol", { SUBP = "a" } },
    { "HS: EXT: unknown ext|WEBSOCKET_PROTOCOL_ERROR", "/raw/extension", { DEFL = true } },
    -- Without the proxy, no compression is offered.
    { direct and "HS: EXT: unknown ext|" or "HS: EXT: failed parsing options|WEBSOCKET_PROTOCOL_ERROR", "/raw/parameter", { DEFL = true } },
    { "HS: EXT: list too big|PARSE_ERROR_HEADERS", "/raw/long", { DEFL = true } },
    { "REQUEST_TIMEOUT timeout|REQUEST_TIMEOUT timeout", "", { RQTM = 200 }, silent },
    { "CONNECT_TIMEOUT timeout|CONNECT_TIMEOUT timeout", "", { CTIM = 200 }, ( silent:gsub( "^ws", "wss" ) ) },
} do
    local said = connect( case[2], nil, case[3], case[4] )
    local expected = "error|" .. case[1]
    if said:sub( 1, #expected ) ~= expected then error( string.format( "%s%s: %q, not %q", case[4] or "", case[2], said, expected ) ) end
    lib.equal( wso.conn, nil )
end
-- An invalid name, so that no name server is asked.
lib.like( connect( "", nil, nil, "ws://a..b/" ), "^error|getaddrinfo %(ipv4%) failed|COULD_NOT_CONNECT" )
-- Without a proxy: event 1 before connect returns.
wso = vws.create( plain, handlers, {}, false, { port = at.closed, direct = false } )
vws.connect( wso )
lib.like( table.remove( events, 1 ), "^error|no proxy at " )

-- SSL settings: the file name that the proxy knows, with or without a path.
local private = "wss://127.0.0.1:" .. at.private
lib.like( connect( "", {}, { VRFY = "none" }, private ), "^error|lws_ssl_client_connect2 failed" )
for _, path in ipairs { "", "./", "/", "/etc/cmh-ludl/" } do
    local ssl_settings = {
        client_ssl_cert_filepath = path .. "client.pem", client_ssl_private_key_filepath = path .. "client.key",
    }
    lib.equal( connect( "", ssl_settings, { VRFY = "none" }, private ), "established" )
    vws.close( wso )
    lib.equal( events.next(), "closed" )
end
lib.equal( connect( "/", nil, { PINS = at.pin }, secure ), "established" )
vws.close( wso )
lib.equal( events.next(), "closed" )

-- set_log_level, by number and by names.
-- Nothing is logged unless the plugin asks for it.
lib.equal( table.concat( logged, ";" ), "" )
local function logs( levels )
    logged = {}
    vws.set_log_level( levels )
    connect "/status/500"
    connect "/"
    vws.close( wso )
    events.next()
    local words = {}
    -- A port may have these digits, too.
    for _, line in ipairs( logged ) do
        words[#words + 1] = line:match( "/status/(500)" ) or line:match( "%a+$" ) or line:match( "(%a+),.*$" )
    end
    return table.concat( words, " " )
end
lib.equal( logs( 0 ), "" )
lib.equal( logs( 3 ), "500" )
lib.equal( logs( "err,warn" ), "500" )
lib.equal( logs( 15 ), "500 established closed" )
lib.equal( logs( "INFO | ERR" ), "established closed" )
lib.equal( logs( 2047 ), "500 established closed" )
lib.equal( logs( "all" ), "500 established closed" )
-- A callback that does not exist or fails is logged.
vws.set_log_level( 0 )
handlers[RECEIVE] = "no_such_function"
handlers[CLOSED] = function() error "oops" end
logged = {}
connect "/"
vws.send( wso, "x" )
vws.send( wso, "close" )
engine.run_until( function() return #logged == 2 end, "the log" )
lib.equal( logged[1], "verawebsockets: no function no_such_function" )
lib.like( logged[2], "^verawebsockets: event 4: .*oops" )
-- In Luup, names are looked up in the plugin's own environment, if it has one.
if setfenv then
    local heard
    local environment = setmetatable( { mine = function( data ) heard = data end }, { __index = _G } )
    local plugin = setfenv( function() return vws.create( plain, { [RECEIVE] = "mine" } ), 1 end, environment )
    local by_pcall = setfenv( function() return select( 2, pcall( vws.create, plain, { [RECEIVE] = "mine" } ) ) end, environment )
    local tail = setfenv( function() return vws.create( plain, { [RECEIVE] = "mine" } ) end, environment )
    local by_tail_call = setfenv( function() return ( tail() ) end, environment )
    for _, create in ipairs { plugin, by_pcall, by_tail_call } do
        heard = nil
        wso = create()
        vws.connect( wso )
        engine.run_until( function() return wso.conn:is_open() end, "open" )
        vws.send( wso, "own" )
        engine.run_until( function() return heard end, "its own" )
        lib.equal( heard, "own" )
        vws.close( wso )
        engine.run_until( function() return not wso.conn end, "closed" )
    end
end

-- In Luup, loop() returns at once. In a script outside of Luup, it serves the connections until the last one has closed.
engine.provide()
connect "/"
vws.loop()
lib.check( wso.conn:is_open() )
wso.conn:close()
engine.withdraw()
local standalone = require( "L_SockProxyVeraWebSockets" ).with { port = port, PACE = 0, direct = direct, patience = 30 }
local heard = {}
local two = {}
for index = 1, 2 do
    two[index] = standalone.create( plain, {
        [ESTABLISHED] = function()
            heard[#heard + 1] = "established"
            standalone.send( two[index], "hi" )
        end,
        [RECEIVE] = function( data )
            heard[#heard + 1] = data
            standalone.send( two[index], "close" )
        end,
        [CLOSED] = function() heard[#heard + 1] = "closed" end,
    }, {}, true )
    standalone.connect( two[index] )
end
standalone.loop()
table.sort( heard )
lib.equal( table.concat( heard, " " ), "closed closed established established hi hi" )

for name in pairs( names ) do rawset( _G, name, nil ) end
lib.no_new_globals()
print "ok"
