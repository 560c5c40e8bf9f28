-- A plugin that listens, with L_SockProxyClient in a simulated Luup. The clients are connections of the same proxy, from
-- another plugin, so to speak.
--
-- usage: lua5.1 listen.lua NAME=VALUE..., in this directory; see tests/e2e/websocket/lua_clients.rs

local lib = require "lib"
local engine = require "engine"
local proxy = require "L_SockProxyClient"

local at = lib.arguments()
engine.listen( at.luup )
-- The machine may be busy with other tests.
proxy.defaults.port, proxy.defaults.patience, proxy.defaults.timeout = at.proxy, 30, 30
proxy.defaults.PACE, proxy.defaults.direct = 0, false

local group = {}
engine.actions.HandleReceive = function( _, parameters ) proxy.handle( group, parameters.Pid ) end
local function notify( fields )
    fields = fields or {}
    fields.device, fields.action = 123, "HandleReceive"
    return engine.notify( fields )
end

-- Listens. Arrivals go into the queue.
local function listen( options )
    local arrivals = engine.queue()
    options.port, options.group = options.port or at.listen, group
    options.notify = options.notify or notify()
    options.on_incoming = function( self, arrival )
        lib.check( self:is_listening() )
        arrivals.put( arrival )
    end
    local events = engine.record( options, true )
    local listener, why = proxy.listen( options )
    lib.check( listener, why )
    return listener, arrivals, events
end

-- A client, which does not wait for its connection.
local function client( target, options )
    options = options or {}
    options.timeout, options.notify, options.group = 0, notify(), group
    options.RQTM, options.CTIM = target:match( "^ws" ) and 60000 or nil, 30000
    local events = engine.record( options )
    return lib.check( proxy.open( target, options ) ), events
end

-- A client whose arrival is claimed: both ends, and their events.
local function connected( listener, arrivals, target, options, accept )
    local near, near_events = client( target, options )
    local arrival = arrivals.next( "an arrival" )
    accept = accept or {}
    local far_events = engine.record( accept )
    accept.notify = accept.notify or notify()
    local far, why = listener:accept( arrival.id, accept )
    lib.check( far, why )
    lib.check( far:is_open() )
    lib.equal( near_events.next( "open" ), "open" )
    return near, near_events, far, far_events, arrival
end

-- TCP: bytes both ways, and the end of either side.
local plain = "127.0.0.1:" .. at.listen
local listener, arrivals = listen { protocol = "tcp" }
local _
local near, near_events, far, far_events, arrival = connected( listener, arrivals, plain )
lib.equal( arrival.address, "127.0.0.1" )
lib.like( arrival.peer, "^127%.0%.0%.1:%d+$" )
lib.check( not arrival.path and #arrival.subprotocols == 0 )
near:binary( "hello" )
lib.equal( far_events.next(), "message hello BINA" )
far:binary( "welcome" )
lib.equal( near_events.next(), "message welcome BINA" )
local long, got = string.rep( "0123456789", 30000 ), ""
far:binary( long )
while #got < #long do got = got .. near_events.next():match( "^message (.*) BINA$" ) end
lib.check( got == long )
near:close()
lib.equal( far_events.next(), "close nil closed" )
_, near_events, far = connected( listener, arrivals, plain )
far:close()
lib.equal( near_events.next(), "close nil closed" )
-- Denied; and claimed when it is over.
_, near_events = client( plain )
lib.equal( near_events.next(), "open" )
lib.equal( listener:deny( arrivals.next().id ), true )
lib.equal( near_events.next(), "close nil closed" )
lib.equal( select( 2, listener:accept( "0" ) ), "No such id" )
-- The port belongs to no other kind of listener; closed, it refuses.
lib.like( select( 2, proxy.listen { port = at.listen, protocol = "ws", on_incoming = print } ), "^address .*in use$" )
near = connected( listener, arrivals, plain )
listener:close()
lib.equal( near:is_open(), true )
near:close()
lib.check( not listener:is_listening() )

-- WebSocket: what an arrival tells, and messages of every kind both ways.
local url = "ws://127.0.0.1:" .. at.listen
listener, arrivals = listen { protocol = "ws", headers = true }
near, near_events, far, far_events, arrival = connected( listener, arrivals, url .. "/panel?room=a%20b&x=1", {
    SUBP = { "chat", "news" }, HDRS = { ["X-Token"] = "secret" }, RHDR = true, MAXM = 200000,
}, { SUBP = "news", HDRS = { ["X-Answer"] = "a b" }, MAXM = 200000 } )
lib.equal( arrival.target .. " " .. arrival.path, "/panel?room=a%20b&x=1 /panel" )
lib.equal( arrival.query.room .. arrival.query.x, "a b1" )
lib.equal( table.concat( arrival.subprotocols, ";" ), "chat;news" )
lib.like( arrival.head, "^GET /panel%?room=a%%20b&x=1 HTTP/1%.1\r\n" )
lib.equal( arrival.headers["x-token"] .. arrival.headers.host, "secret127.0.0.1:" .. at.listen )
local head = near_events.next()
lib.like( head, "^head HTTP/1%.1 101 " )
lib.like( head:lower(), "\r\nsec%-websocket%-protocol: news\r\n" )
lib.like( head, "\r\nX%-Answer: a b\r\n" )
for _, text in ipairs { "hello", "", "gr\195\188\195\159\n\0\r\n", string.rep( "0123456789", 15000 ) } do
    near:text( text )
    lib.equal( far_events.next(), "message " .. text .. " TEXT" )
end
far:text( "back" )
far:binary( "\0\255\n" )
lib.equal( near_events.next() .. near_events.next(), "message back TEXTmessage \0\255\n BINA" )
near:ping( "one" )
lib.equal( near_events.next(), "pong one" )
far:ping( "two" )
lib.equal( far_events.next(), "pong two" )
near:shut( 4001, "why not" )
lib.equal( far_events.next(), "close 4001 why not" )
lib.like( near_events.next(), "^close 4001" )
near, near_events, far, far_events = connected( listener, arrivals, url .. "/", nil, { CTRL = "hand", MAXM = 1000 } )
near:ping( "by hand" )
lib.equal( far_events.next(), "ping by hand" )
far:pong( "by hand" )
lib.equal( near_events.next(), "pong by hand" )
near:text( string.rep( "x", 1001 ) )
lib.like( far_events.next(), "^close 1009" )
lib.like( near_events.next(), "^close 1009" )
_, near_events, far = connected( listener, arrivals, url .. "/" )
far:close( 4002, "enough" )
lib.equal( near_events.next(), "close 4002 enough" )
-- Denied: the response has the status.
_, near_events = client( url .. "/" )
listener:deny( arrivals.next().id, 403, "not today" )
lib.like( near_events.next(), "^error BAD_HTTP_STATUS 403" )
-- An option that concerns connecting only.
_, near_events = client( url .. "/" )
arrival = arrivals.next()
lib.like( select( 2, listener:accept( arrival.id, { VRFY = "none" } ) ), "^Invalid option VRFY" )
listener:deny( arrival.id, 404 )
lib.like( near_events.next(), "^error BAD_HTTP_STATUS 404" )
listener:close()

-- Nothing claims or denies it: 503 after `wait` seconds.
listener, arrivals = listen { wait = 1 }
_, near_events = client( url .. "/" )
arrival = arrivals.next()
lib.like( near_events.next(), "^error BAD_HTTP_STATUS 503" )
lib.equal( select( 2, listener:accept( arrival.id ) ), "No such id" )
lib.equal( listener:deny( arrival.id ), true )
listener:close()

-- What the proxy refuses by itself: origins, passwords, subprotocols, paths. No arrival is reported.
local function refused( target, options )
    local _, events = client( target, options )
    return events.next():match( "^error BAD_HTTP_STATUS (%d+)" )
end
listener, arrivals = listen { path = "/a", origins = { "http://*.home", "https://me:8443" }, auth = "me:pass word", subprotocols = "b,c" }
local function with( changes )
    local options = { ORIG = "http://vera.home", AUTH = "me:pass word", SUBP = "a,b,c" }
    for name, value in pairs( changes ) do options[name] = value or nil end
    return options
end
lib.equal( refused( url .. "/a", with { ORIG = "http://elsewhere" } ), "403" )
lib.equal( refused( url .. "/a", with { AUTH = "me:guess" } ), "401" )
lib.equal( refused( url .. "/a", with { SUBP = "x" } ), "400" )
lib.equal( refused( url .. "/b", with {} ), "404" )
lib.equal( #arrivals, 0 )
local second, second_arrivals = listen { path = "/b" }
near, near_events, far, far_events, arrival = connected( listener, arrivals, url .. "/a?x", with { RHDR = "on" } )
lib.equal( arrival.path, "/a" )
lib.like( near_events.next():lower(), "\r\nsec%-websocket%-protocol: b\r\n" )
local other, other_near, other_far, other_events = connected( second, second_arrivals, url .. "/b" )
other:text( "to b" )
near:text( "to a" )
lib.equal( far_events.next() .. other_events.next(), "message to a TEXTmessage to b TEXT" )
lib.equal( #other_near, 0 )
for _, conn in ipairs { near, far, other, other_far } do conn:close() end
second:close()

-- The newer listener of a path takes it over. The older one finds out, and may try again later.
local third, third_arrivals = listen { path = "/a" }
engine.poll_until( function() return listener.transport and listener.transport.sock end, function() listener:poll() end,
    function() return not listener:is_listening() end, "taken over" )
listener:close()
connected( third, third_arrivals, url .. "/a" ):close()
third:close()

-- A Luup reload: the sockets and all Lua state are gone, except what the plugin has stored. The claimed connection is kept;
-- no message is lost or comes twice. The plugin listens again, although the old socket is still open in a child process.
local stored = { pid = proxy.secret(), seen = 0 }
local function keeping( options )
    options.seen = stored.seen
    options.on_seen = function( _, seen ) stored.seen = seen end
    options.notify = notify { pid = stored.pid }
    return options
end
listener, arrivals = listen { path = "/kept" }
near, near_events, far, far_events = connected( listener, arrivals, url .. "/kept", nil, keeping { KEEP = 300 } )
lib.equal( far.pid, stored.pid )
near:text( "before" )
lib.equal( far_events.next(), "message before TEXT" )
engine.run_until( function() return stored.seen == 1 end, "on_seen" )
far.channel:close()
group[far], group[listener] = nil, nil
near:text( "meanwhile" )
for name in pairs( package.loaded ) do
    if name:match( "^L_SockProxy" ) then package.loaded[name] = nil end
end
local reloaded = require "L_SockProxyClient"
reloaded.defaults.port, reloaded.defaults.patience, reloaded.defaults.timeout = at.proxy, 30, 30
reloaded.defaults.PACE, reloaded.defaults.direct = 0, false
lib.check( reloaded ~= proxy )
proxy = reloaded
local options = keeping { group = group }
far_events = engine.record( options )
far = lib.check( proxy.attach( stored.pid, options ) )
lib.equal( far_events.next(), "message meanwhile TEXT" )
far:text( "after" )
lib.equal( near_events.next(), "message after TEXT" )
listener, arrivals = listen { path = "/kept" }
connected( listener, arrivals, url .. "/kept" ):close()
far:close()
lib.like( near_events.next(), "^close 1000" )
listener:close()

-- TLS, with the certificate of the proxy's directory.
local secure = { CAFL = "ca.pem" }
listener, arrivals = listen { port = at.second, protocol = "wss", certificate = "server.pem", key = "server.key" }
near, near_events, far, far_events = connected( listener, arrivals, "wss://127.0.0.1:" .. at.second .. "/", { CAFL = "ca.pem" } )
near:text( "secret" )
lib.equal( far_events.next(), "message secret TEXT" )
far:text( "and back" )
lib.equal( near_events.next(), "message and back TEXT" )
near:close()
listener:close()
listener, arrivals = listen { port = at.third, protocol = "tls", certificate = "server.pem", key = "server.key" }
secure.PRTO = "tls"
near, _, _, far_events = connected( listener, arrivals, "127.0.0.1:" .. at.third, secure )
near:binary( "secret" )
lib.equal( far_events.next(), "message secret BINA" )
near:close()
listener:close()
lib.like( select( 2, proxy.listen { port = at.third, protocol = "wss", certificate = "none.pem", on_incoming = print } ), "%w" )

-- Without notifications: polled.
local polled = {}
listener = lib.check( proxy.listen { port = at.listen, on_incoming = function( _, one ) polled[#polled + 1] = one.id end } )
client( url .. "/" )
local function owner() return listener.transport and listener.transport.sock end
engine.poll_until( owner, function() listener:poll() end, function() return #polled == 1 end, "polled" )
listener:close()
-- Outside of Luup: the loop serves the listener and its connections.
local alone, served = {}, {}
listener = lib.check( proxy.listen { port = at.listen, group = alone, on_incoming = function( self, one )
    self:accept( one.id, { on_message = function( conn, text )
        served[#served + 1] = text
        conn:close()
        self:close()
    end } )
end } )
local speaker = lib.check( proxy.open( url .. "/", { timeout = 0, group = alone, on_open = function( conn ) conn:text( "loop" ) end } ) )
lib.equal( proxy.loop( alone, nil, 60 ), true )
lib.equal( table.concat( served ), "loop" )
lib.equal( speaker.state, "closed" )

-- The proxy is known by a name whose look-up takes longer than a poll may wait.
local Clock, Operation, Resolver = require "L_SockProxyClock", require "L_SockProxyOperation", require "L_SockProxyResolver"
local resolve, lookups = Resolver.resolve, 0
function Resolver.resolve( name )
    lib.equal( name, "proxy.example" )
    lookups = lookups + 1
    Operation.wait( nil, "read", Clock.now(), 0.2 )
    return "127.0.0.1"
end
local named = listen { protocol = "tcp", timeout = 0, proxy = { host = "proxy.example", port = at.proxy } }
lib.equal( named:is_listening(), false )
engine.run_until( function() return named:is_listening() end, "the listener" )
lib.equal( lookups, 1 )
named:close()
Resolver.resolve = resolve

lib.no_new_globals()
print "ok"
