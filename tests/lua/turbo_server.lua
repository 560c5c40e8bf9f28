-- A plugin written for turbo's WebSocketHandler, with L_SockProxyTurbo: the example of turbo's documentation, and each
-- function and callback of its handler. Each test's name stands in the table of docs/lua.md.
--
-- usage: lua5.1 turbo_server.lua NAME=VALUE..., in this directory; see tests/e2e/websocket/lua_clients.rs

local socket = require "socket"
local lib = require "lib"
local engine = require "engine"
local Frames = require "L_SockProxyFrames"
local proxy = require "L_SockProxyClient"
local class_of = require "L_SockProxyClass"

local at = lib.arguments()
engine.listen( at.luup )
proxy.defaults.port, proxy.defaults.patience, proxy.defaults.timeout = at.proxy, 30, 30
proxy.defaults.PACE, proxy.defaults.direct = 0, false
local url = "ws://127.0.0.1:" .. at.listen

local logged = {}
local function defaults()
    return {
        notify = engine.notify { device = 123, action = "HandleReceive" }, port = at.proxy, PACE = 0, direct = false, patience = 30,
        log = function( words ) logged[#logged + 1] = words end,
    }
end
local turbo, class = require( "L_SockProxyTurbo" ).with( defaults() )
lib.equal( class, turbo.class )

-- The clients.
local group = {}
local function client( path, options )
    options = options or {}
    local events = engine.record( options )
    options.timeout, options.group, options.RQTM = 0, group, 60000
    options.notify = engine.notify { device = 123, action = "HandleReceive" }
    local conn = lib.check( proxy.open( path:match( "^ws" ) and path or url .. path, options ) )
    return conn, events
end
local handle = turbo.handle
function engine.actions.HandleReceive( _, parameters )
    proxy.handle( group, parameters.Pid )
    handle( parameters.Pid )
end

local tests, names = {}, {}
setmetatable( tests, { __newindex = function( _, name, test )
    names[#names + 1] = name
    rawset( tests, name, test )
end } )

-- The example of turbo's documentation. Only the lines with `require` and with the loop differ: this library's tables are
-- given to it, and the test's engine is the loop.
local EXAMPLE = [[
_G.TURBO_SSL = true
local turbo, class = require( "L_SockProxyTurbo" ).with( defaults )

local WSExHandler = class("WSExHandler", turbo.websocket.WebSocketHandler)

function WSExHandler:on_message(msg)
    self:write_message("Hello World.")
end

turbo.web.Application({{"^/ws$", WSExHandler}}):listen(8888)
return turbo
]]

function tests.the_example_of_turbo()
    local settings = defaults()
    -- The port of the example may be in use on this machine.
    local text = EXAMPLE:gsub( "8888", tostring( at.second ) )
    local environment = setmetatable( { defaults = settings, _G = {} }, { __index = _G } )
    local example = lib.load_in( environment, text, "example" )()
    handle = example.handle
    local place = "ws://127.0.0.1:" .. at.second
    local conn, events = client( place .. "/ws" )
    lib.equal( events.next(), "open" )
    conn:text( "hello" )
    lib.equal( events.next(), "message Hello World. TEXT" )
    local _, others = client( place .. "/other" )
    lib.like( others.next(), "^error BAD_HTTP_STATUS 404" )
    conn:close()
    handle = turbo.handle
    -- The loop serves an application outside of Luup. close() of either ends it.
    environment.defaults.notify = nil
    example.ioloop.instance():add_callback( function() example.ioloop.instance():close() end ):start()
end

-- An application whose handler puts its events into a queue, unless `methods` has one of its own.
local application, second
local function serve( methods, kwargs, pattern )
    local events = engine.queue()
    local Handler = class( "Handler", turbo.websocket.WebSocketHandler )
    events.class = Handler
    for _, name in ipairs { "open", "on_message", "on_close", "on_error" } do
        Handler[name] = function( self, ... )
            events.handler = self
            local words = { name }
            for index = 1, select( "#", ... ) do words[#words + 1] = tostring( ( select( index, ... ) ) ) end
            events.put( table.concat( words, " " ) )
            if methods and methods[name] then methods[name]( self, ... ) end
        end
    end
    for name, method in pairs( methods or {} ) do
        if not Handler[name] or name == "prepare" or name == "subprotocol" or name == "on_create" then Handler[name] = method end
    end
    application = turbo.web.Application { { pattern or "^/ws$", Handler, { room = 7 } } }
    lib.equal( application:listen( at.listen, "127.0.0.1", kwargs ), application )
    return events
end

-- A client whose handler is open.
local function connected( handler_events, options, path )
    local conn, events = client( path or "/ws", options )
    lib.equal( events.next( "open" ), "open" )
    lib.equal( handler_events.next( "open" ), "open" )
    return conn, events
end

function tests.write_message()
    local served = serve( { open = function( self ) self:write_message( "first" ) end } )
    local _, events = connected( served )
    lib.equal( events.next(), "message first TEXT" )
    local self = served.handler
    self:write_message( "gr\195\188n" )
    lib.equal( events.next(), "message gr\195\188n TEXT" )
    self:write_message( "\255\0", true )
    lib.equal( events.next(), "message \255\0 BINA" )
    self:write_message { id = 1, list = { 1.5, true } }
    lib.equal( events.next(), 'message {"id":1,"list":[1.5,true]} TEXT' )
    self:close()
    lib.fails( "has been closed", self.write_message, self, "late" )
    lib.fails( "has been closed", self.ping, self, "late" )
    lib.like( events.next(), "^close 1005" )
    lib.equal( served.next(), "on_close" )
end

function tests.on_message()
    local served = serve()
    local conn = connected( served )
    for _, text in ipairs { "hello", "", string.rep( "0123456789", 5000 ) } do
        conn:text( text )
        lib.equal( served.next(), "on_message " .. text )
    end
    conn:binary( "\0\255" )
    lib.equal( served.next(), "on_message \0\255" )
    conn:close()
    lib.equal( served.next(), "on_close" )
end

-- turbo does not check whether a text is UTF-8. The client is a socket, since the libraries send UTF-8 only.
function tests.text_that_is_not_utf8()
    for expected, kwargs in pairs { ["on_message Gr\252\223e"] = {}, ["on_error a text is not UTF-8"] = { LENI = false } } do
        local served = serve( nil, kwargs )
        local sock = lib.check( socket.connect( "127.0.0.1", at.listen ) )
        sock:send( ( ( [[
GET /ws HTTP/1.1
Host: h
Upgrade: websocket
Connection: Upgrade
Sec-WebSocket-Version: 13
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==

]] ):gsub( "\n", "\r\n" ) ) )
        lib.equal( served.next(), "open" )
        sock:send( Frames.encode( 1, "Gr\252\223e", true, "\1\2\3\4" ) )
        lib.equal( served.next(), expected )
        sock:close()
        lib.equal( served.next(), "on_close" )
        application:close()
    end
end

function tests.ping_and_its_callback()
    local served = serve()
    local conn, events = connected( served )
    local pongs = engine.queue()
    served.handler:ping( "one", function( ... ) pongs.put( table.concat( { ... }, "|" ) ) end )
    lib.equal( pongs.next(), "one" )
    served.handler:ping( "two", function( ... ) pongs.put( table.concat( { ... }, "|" ) ) end, "argument" )
    lib.equal( pongs.next(), "argument|two" )
    served.handler:ping()
    -- The proxy answers the client's pings.
    conn:ping( "mine" )
    lib.equal( events.next(), "pong mine" )
    served.handler:ping( "three", function() error "oops" end )
    lib.like( served.next(), "^on_error ping: .*oops" )
    lib.equal( served.next(), "on_close" )
    lib.like( events.next(), "^close 1011" )
end

function tests.on_ping_and_pong()
    local served = serve( { on_ping = function( self, data ) self:pong( data:upper() ) end } )
    -- The pong has other data than the ping, so the client's proxy shows it only if it shows all.
    local conn, events = connected( served, { CTRL = "show" } )
    conn:ping( "loud" )
    lib.equal( events.next(), "pong LOUD" )
    conn:close()
    lib.equal( served.next(), "on_close" )
end

function tests.close_and_closed()
    local served = serve()
    local _, events = connected( served )
    lib.equal( served.handler:closed(), nil )
    served.handler:close()
    served.handler:close()
    lib.equal( served.handler:closed(), true )
    lib.like( events.next(), "^close 1005" )
    lib.equal( served.next(), "on_close" )
    lib.equal( #served, 0 )
end

function tests.on_close()
    local served = serve()
    local conn = connected( served )
    conn:shut( 1000, "bye" )
    lib.equal( served.next(), "on_close" )
    lib.equal( served.handler:closed(), true )
    -- Without a close frame.
    conn = connected( served )
    conn.channel:close()
    lib.equal( served.next(), "on_close" )
end

function tests.on_error()
    -- A client that breaks a rule, or sends too much.
    local served = serve( nil, { max_buffer_size = 1000 } )
    local conn, events = connected( served )
    conn:text( string.rep( "x", 1001 ) )
    lib.like( served.next(), "^on_error " )
    lib.equal( served.next(), "on_close" )
    lib.like( events.next(), "^close 1009" )
    application:close()
    -- A callback that fails closes the connection.
    for _, name in ipairs { "open", "on_message" } do
        served = serve( { [name] = function() error( "oops in " .. name ) end } )
        conn, events = client( "/ws" )
        lib.equal( events.next(), "open" )
        lib.equal( served.next(), "open" )
        if name == "on_message" then
            conn:text( "x" )
            lib.equal( served.next(), "on_message x" )
        end
        lib.like( served.next(), "^on_error " .. name .. ": .*oops in " .. name )
        lib.equal( served.next(), "on_close" )
        lib.like( events.next(), "^close 1011" )
        application:close()
    end
    -- on_close and on_error may fail, too.
    served = serve( { on_close = function() error "oops" end, on_error = function() error "again" end } )
    conn = connected( served )
    conn:close()
    lib.equal( served.next(), "on_close" )
    lib.like( served.next(), "^on_error on_close: .*oops" )
    lib.like( logged[#logged], "on_error: .*again" )
end

function tests.prepare()
    local seen
    local served = serve( { prepare = function( self )
        seen = self
        local token = self:get_argument( "token", "none" )
        if token == "redirect" then error( turbo.web.HTTPError( 307 ) ) end
        if token == "wrong" then error( turbo.web.HTTPError:new( 403, "wrong\r\ntoken" ) ) end
        if token == "broken" then error "oops" end
        if token == "odd" then error( turbo.web.HTTPError( 200 ) ) end
        if token == "closed" then self:close() end
        if token == "none" then self:get_argument( "missing" ) end
    end }, { ORIG = "http://*.home" } )
    for token, status in pairs {
        wrong = "403", broken = "500", odd = "500", closed = "403", none = "400", redirect = "307",
    } do
        local _, events = client( "/ws?token=" .. token, { RDIR = 0 } )
        lib.like( events.next(), token == "redirect" and "^error " or "^error BAD_HTTP_STATUS " .. status )
    end
    lib.like( table.concat( logged, ";" ), "/ws: .*oops" )
    local conn = connected( served, { ORIG = "http://vera.home", HDRS = { "X-One: 1" } }, "/ws?token=a%20b&x=1&x=2" )
    lib.equal( served.handler, seen )
    lib.equal( seen.origin, "http://vera.home" )
    lib.equal( seen.request.method .. seen.request.path .. seen.request.uri, "GET/ws/ws?token=a%20b&x=1&x=2" )
    lib.equal( seen.request.version .. seen.request.remote_ip .. seen.request.protocol, "HTTP/1.1127.0.0.1http" )
    lib.equal( seen.request.host, "127.0.0.1:" .. at.listen )
    lib.equal( seen.request.headers:get( "x-one" ), "1" )
    lib.equal( seen.request.headers:get_url() .. seen.request.headers:get_method(), "/ws?token=a%20b&x=1&x=2GET" )
    lib.equal( seen:get_argument( "token" ) .. seen:get_argument( "x" ), "a b1" )
    lib.equal( table.concat( seen:get_arguments( "x" ), "," ), "1,2" )
    lib.equal( #seen:get_arguments( "none" ), 0 )
    lib.check( seen.application == application and seen:settings() and seen.options.room == 7 )
    conn:close()
    lib.equal( served.next(), "on_close" )
    -- Another origin never gets there.
    local _, events = client( "/ws?token=a", { ORIG = "http://elsewhere" } )
    lib.like( events.next(), "^error BAD_HTTP_STATUS 403" )
end

function tests.subprotocol()
    local offered, order = nil, {}
    local served = serve( {
        on_create = function() order[#order + 1] = "on_create" end,
        subprotocol = function( _, protocols )
            order[#order + 1] = "subprotocol"
            offered = table.concat( protocols, ";" )
            for _, name in ipairs( protocols ) do
                if name == "news" then return name end
                if name == "taboo" then error( turbo.web.HTTPError( 410, "gone" ) ) end
                if name == "typo" then return "tpyo" end
            end
        end,
        prepare = function() order[#order + 1] = "prepare" end,
    } )
    local conn = connected( served, { SUBP = "chat,news" } )
    lib.equal( offered, "chat;news" )
    lib.equal( served.handler.subprotocol, "news" )
    lib.equal( table.concat( order, " " ), "on_create subprotocol prepare" )
    conn:close()
    lib.equal( served.next(), "on_close" )
    -- None is offered: it is not called.
    offered = nil
    conn = connected( served )
    lib.equal( offered, nil )
    conn:close()
    lib.equal( served.next(), "on_close" )
    for name, status in pairs { chat = "400", taboo = "410", typo = "400" } do
        local _, events = client( "/ws", { SUBP = name } )
        lib.like( events.next(), "^error BAD_HTTP_STATUS " .. status )
    end
    application:close()
    -- A handler without subprotocol() accepts none, as in turbo.
    served = serve()
    local _, events = client( "/ws", { SUBP = "chat" } )
    lib.like( events.next(), "^error BAD_HTTP_STATUS 400" )
    lib.equal( #served, 0 )
end

function tests.application()
    local Chat = class( "Chat", turbo.websocket.WebSocketHandler )
    function Chat:open() self:write_message( self._url_args[1] .. self.options ) end
    local News = Chat:subclass( "News" )
    function News:open() self:write_message( "news " .. self._url_args[1] ) end
    application = turbo.web.Application( { { "^/chat/(%w+)$", Chat, "!" } }, { debug = true } )
    application:add_handler( "^/news/", News )
    application:listen( at.listen, "127.0.0.1", { PNGI = 60, WAIT = 20, DEFL = true, AUTH = "me:secret" } )
    for path, expected in pairs { ["/chat/kitchen"] = "kitchen!", ["/news/all?x"] = "news /news/" } do
        local conn, events = client( path, { AUTH = "me:secret", DEFL = true } )
        lib.equal( events.next(), "open" )
        lib.equal( events.next(), "message " .. expected .. " TEXT" )
        conn:close()
    end
    local _, events = client( "/elsewhere", { AUTH = "me:secret" } )
    lib.like( events.next(), "^error BAD_HTTP_STATUS 404" )
    _, events = client( "/chat/kitchen" )
    lib.like( events.next(), "^error BAD_HTTP_STATUS 401" )
    -- A path that is known leaves the other paths of the port to other plugins.
    application:close()
    serve( nil, nil, "^/a%-b$" )
    second = turbo.web.Application { { "^/c$", Chat, "" } }
    second:listen( at.listen, "127.0.0.1" )
    local conn, more = client( "/c" )
    lib.equal( more.next() .. more.next(), "openmessage /c TEXT" )
    conn:close()
    conn, more = client( "/a-b" )
    lib.equal( more.next(), "open" )
    conn:close()
    second:close()
    -- What cannot be.
    lib.fails( "the class must be below turbo.websocket.WebSocketHandler", turbo.web.Application, { { "^/$", {} } } )
    lib.fails( "needs a pattern", turbo.web.Application, { { nil, Chat } } )
    lib.fails( "listen sets PATH itself", application.listen, application, at.listen, nil, { PATH = "/x" } )
    lib.fails( "cannot listen on port 0: invalid port", application.listen, application, 0 )
    lib.fails( "HTTPError code argument must be number", turbo.web.HTTPError, "403" )
    lib.equal( tostring( turbo.web.HTTPError( 403, "no" ) ), "HTTPError 403 no" )
end

function tests.ssl_options()
    local served = serve( nil, { ssl_options = { cert_file = "/etc/server.pem", key_file = "server.key" } } )
    local conn, events = client( url:gsub( "^ws", "wss" ) .. "/ws", { CAFL = "ca.pem" } )
    lib.equal( events.next(), "open" )
    lib.equal( served.next(), "open" )
    lib.equal( served.handler.request.protocol, "https" )
    conn:text( "secret" )
    lib.equal( served.next(), "on_message secret" )
    conn:close()
    lib.equal( served.next(), "on_close" )
end

function tests.ioloop()
    local alone, class_alone = require( "L_SockProxyTurbo" ).with { port = at.proxy, PACE = 0, direct = false, patience = 30 }
    local heard = {}
    local Echo = class_alone( "Echo", alone.websocket.WebSocketHandler )
    function Echo:on_message( msg ) self:write_message( msg ) end
    function Echo.on_close() alone.ioloop.instance():close() end
    alone.web.Application( { { "^/ws$", Echo } } ):listen( at.listen )
    alone.ioloop.instance():add_callback( function()
        alone.websocket.WebSocketClient( url .. "/ws", {
            on_connect = function( self ) self:write_message( "Hello World!" ) end,
            on_message = function( self, msg )
                heard[#heard + 1] = msg
                self:close()
            end,
        } )
    end ):start()
    lib.equal( table.concat( heard ), "Hello World!" )
end

-- Classes.
function tests.class()
    local A = class_of( "A" )
    function A:initialize( value ) self.value = value end
    function A:get() return self.value end
    local B = class_of( "B", A )
    function B:get() return "b" .. A.get( self ) end
    local mixin = { extra = function() return "extra" end, included = function( _, into ) into.marked = true end }
    lib.equal( B:include( mixin ), B )
    local b = B( 1 )
    lib.equal( b:get() .. b.extra() .. tostring( b.marked ), "b1extratrue" )
    lib.equal( B:new( 2 ).value + A( 3 ).value, 5 )
    lib.check( b:isInstanceOf( A ) and b:isInstanceOf( B ) and not A( 1 ):isInstanceOf( B ) )
    lib.check( B:isSubclassOf( A ) and not A:isSubclassOf( B ) and not A:isSubclassOf( A ) )
    lib.equal( tostring( B ) .. tostring( b ), "class Binstance of class B" )
    function A:__tostring() return "A " .. self.value end
    lib.equal( tostring( b ) .. tostring( A( 2 ) ), "A 1A 2" )
    -- What belongs to the class is not in its instances.
    lib.check( B.name == "B" and B.super == A and b.class == B )
    lib.check( b.name == nil and b.super == nil and b.new == nil and b.include == nil )
    lib.equal( class_of( "C" )().initialize ~= nil, true )
    lib.fails( "needs a name", class_of )
end

for _, name in ipairs( names ) do
    local ok, why = xpcall( tests[name], debug.traceback )
    if not ok then error( name .. ": " .. tostring( why ), 0 ) end
    if application then application:close() end
    application = nil
end

-- Every test stands in the document, and every function there has a test.
local file = assert( io.open( "../../docs/lua.md" ) )
local document = file:read( "*a" )
file:close()
local rows = {}
for name in document:gmatch( "`turbo_server: ([%w_]+)`" ) do
    lib.check( tests[name], "no test " .. name )
    rows[name] = true
end
for _, name in ipairs( names ) do
    if name ~= "class" then lib.check( rows[name], "docs/lua.md does not name the test " .. name ) end
end

lib.no_new_globals()
print "ok"
