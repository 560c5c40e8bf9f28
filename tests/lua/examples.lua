-- The plugins of examples/, each loaded as Luup does it: its implementation file gives the functions and the jobs.
--
-- usage: lua5.1 examples.lua mode=proxy|direct NAME=VALUE..., in this directory; see tests/e2e/websocket/lua_clients.rs

local socket = require "socket"
local lib = require "lib"
local engine = require "engine"

local at = lib.arguments()
local direct = at.mode == "direct"
engine.listen( at.luup )
engine.provide( true )
local luup = rawget( _G, "luup" )
local proxy = require "L_SockProxyClient"
proxy.defaults.port, proxy.defaults.patience, proxy.defaults.PACE = direct and at.closed or at.proxy, 30, 0

local DEVICE, SECOND = 123, 124
-- The action that the proxy invokes, by device.
local receives = {}
engine.actions.HandleReceive = function( number, parameters )
    if receives[number] then receives[number]( parameters ) end
end
local variables, actions, watched = {}, engine.queue(), {}
local function key( service, name, device ) return service .. " " .. name .. " " .. tostring( device ) end
function luup.variable_get( service, name, device ) return variables[key( service, name, device )] end
function luup.variable_set( service, name, value, device ) variables[key( service, name, device )] = tostring( value ) end
function luup.call_action( service, name, arguments, device )
    actions.put( table.concat( { service, name, arguments.newTargetValue, device }, " " ) )
end
function luup.variable_watch( name, service, variable, device ) watched[key( service, variable, device )] = name end

local function read( path )
    local file = assert( io.open( path ) )
    local text = file:read( "*a" )
    file:close()
    return text
end
local ENTITIES = { ["&lt;"] = "<", ["&gt;"] = ">", ["&amp;"] = "&" }
local function unescaped( text ) return ( text:gsub( "&%l+;", ENTITIES ) ) end

-- Starts a plugin. Returns what its startup returns, a function that invokes one of its actions, and its global names. `second`: the
-- number of another device of the plugin. openLuup loads the L_ file once for both, and the functions of the I_ file for each.
local function start( folder, name, second )
    local device = second or DEVICE
    local from = "../../examples/" .. folder .. "/"
    package.path = from .. "?.lua;" .. package.path
    -- Luup has loaded nothing of it before, or has reloaded.
    if not second then package.loaded["L_" .. name .. "1"] = nil end
    local implementation, service = read( from .. "I_" .. name .. "1.xml" ), read( from .. "S_" .. name .. "1.xml" )
    lib.check( read( from .. "D_" .. name .. "1.xml" ):find( "<implementationFile>I_" .. name .. "1.xml", 1, true ) )
    lib.check( service:find( "<name>HandleReceive</name>", 1, true ) and service:find( "<name>Pid</name>", 1, true ) )
    local _, lines = read( from .. "L_" .. name .. "1.lua" ):gsub( "\n", "" )
    lib.check( lines < 100, lines .. " lines" )
    local environment = setmetatable( {}, { __index = _G } )
    lib.load_in( environment, unescaped( implementation:match( "<functions>(.-)</functions>" ) ), name )()
    local jobs = {}
    for action in implementation:gmatch( "<action>(.-)</action>" ) do
        local code = action:match( "<job>(.-)</job>" ) or action:match( "<run>(.-)</run>" )
        jobs[action:match( "<name>(.-)</name>" )] = unescaped( code )
    end
    local function invoke( action, settings )
        environment.lul_device, environment.lul_settings = device, settings or {}
        return lib.load_in( environment, jobs[action], action )()
    end
    if not second then receives = {} end
    receives[device] = function( parameters ) invoke( "HandleReceive", parameters ) end
    local ok, message = environment[implementation:match( "<startup>(.-)</startup>" )]( device )
    return ok, message, invoke, environment
end
local function variable( name, service, device ) return variables[key( service, name, device or DEVICE )] end
local function wait_for( name, service, value, device )
    engine.run_until( function() return variable( name, service, device ) == value end, name .. " = " .. value )
end

-- A TCP device: lines in pieces, commands, and the library connects again when it was away.
local RECEIVER, SWITCH = "urn:example-com:serviceId:Receiver1", "urn:upnp-org:serviceId:SwitchPower1"
local ok, message, invoke = start( "tcp-device", "Receiver" )
lib.check( ok and message:find( "Address" ) )
local remote = assert( socket.bind( "127.0.0.1", 0 ) )
remote:settimeout( 0 )
luup.variable_set( RECEIVER, "Address", "127.0.0.1:" .. select( 2, remote:getsockname() ), DEVICE )
ok, message, invoke = start( "tcp-device", "Receiver" )
lib.check( ok, message )
-- Accepts, and waits for a line, while Luup's timers run.
local function accepted()
    local peer
    engine.run_until( function()
        peer = remote:accept()
        return peer
    end, "a connection" )
    peer:settimeout( 0 )
    return peer
end
local function hears( peer, expected )
    local got = ""
    engine.run_until( function()
        local data, _, part = peer:receive( 100 )
        got = got .. ( data or part or "" )
        return #got >= #expected
    end, expected )
    lib.equal( got, expected )
end
for round = 1, 2 do
    local peer = accepted()
    hears( peer, "PWR ?\r\n" )
    peer:send( "PWR ON\r\nPWR O" )
    wait_for( "Status", SWITCH, "1" )
    peer:send( "FF\r\nVOL 3\r\n" )
    wait_for( "Status", SWITCH, "0" )
    lib.equal( variable( "Connected", RECEIVER ), "1" )
    invoke( "SetTarget", { newTargetValue = "1" } )
    hears( peer, "PWR ON\r\n" )
    if round == 2 then
        -- Another receiver: neither takes the lines, the commands or the rest of a line of the other.
        luup.variable_set( RECEIVER, "Address", luup.variable_get( RECEIVER, "Address", DEVICE ), SECOND )
        local invoke_second
        ok, message, invoke_second = start( "tcp-device", "Receiver", SECOND )
        lib.check( ok, message )
        local other = accepted()
        hears( other, "PWR ?\r\n" )
        peer:send( "PWR O" )
        other:send( "PWR ON\r\n" )
        wait_for( "Status", SWITCH, "1", SECOND )
        lib.equal( variable( "Status", SWITCH ), "0" )
        peer:send( "N\r\n" )
        wait_for( "Status", SWITCH, "1" )
        invoke( "SetTarget", { newTargetValue = "0" } )
        hears( peer, "PWR OFF\r\n" )
        invoke_second( "SetTarget", { newTargetValue = "1" } )
        hears( other, "PWR ON\r\n" )
        other:close()
        wait_for( "Connected", RECEIVER, "0", SECOND )
        lib.equal( variable( "Connected", RECEIVER ), "1" )
        -- What has no line end takes no time that grows with its square.
        local used = os.clock()
        peer:send( ( "x" ):rep( 100000 ) .. "\r\nPWR OFF\r\n" )
        wait_for( "Status", SWITCH, "0" )
        lib.check( os.clock() - used < 1, "slow" )
    end
    peer:close()
    wait_for( "Connected", RECEIVER, "0" )
end

-- A hub over wss, with a pin: it is told the token, and after a reload the connection is the same.
local HUB = "urn:example-com:serviceId:Hub1"
for name, value in pairs { Url = "wss://127.0.0.1:" .. at.secure .. "/", Token = "secret", Pins = at.pin } do
    luup.variable_set( HUB, name, value, DEVICE )
end
ok, message = start( "wss-device", "Hub" )
lib.check( ok, message )
-- The server sends back what it is told.
luup.variable_set( HUB, "Token", 'x","event":"greeted', DEVICE )
ok, message = start( "wss-device", "Hub" )
lib.check( ok, message )
if direct then
    -- Without the proxy the connection is a new one, and the token is said again.
    wait_for( "LastEvent", HUB, "greeted" )
else
    engine.run_until( function() return variable( "ProxySeen", HUB ) == "1" end, "the answer" )
    lib.equal( variable( "LastEvent", HUB ), nil )
end
-- Another hub has a connection and a secret of its own.
for name, value in pairs { Url = "wss://127.0.0.1:" .. at.secure .. "/", Token = 'x","event":"second', Pins = at.pin } do
    luup.variable_set( HUB, name, value, SECOND )
end
local first_event = variable( "LastEvent", HUB )
ok, message = start( "wss-device", "Hub", SECOND )
lib.check( ok, message )
wait_for( "LastEvent", HUB, "second", SECOND )
lib.equal( variable( "LastEvent", HUB ), first_event )
lib.check( variable( "ProxyPid", HUB ) ~= variable( "ProxyPid", HUB, SECOND ) )

-- Discovery: a device answers the question.
local FINDER = "urn:example-com:serviceId:Finder1"
-- Returns a device that answers, and what to set Target to.
local function answerer()
    local device = socket.udp()
    device:setsockname( "127.0.0.1", 0 )
    device:settimeout( 0 )
    return device, "127.0.0.1:" .. select( 2, device:getsockname() )
end
local device, target = answerer()
luup.variable_set( FINDER, "Target", target, DEVICE )
ok, message, invoke = start( "udp-discovery", "Finder" )
lib.check( ok, message )
local function answer( location, from )
    from = from or device
    local question, host, port
    engine.run_until( function()
        question, host, port = from:receivefrom()
        return question
    end, "a question" )
    lib.like( question, "^M%-SEARCH %* HTTP/1.1\r\n" )
    from:sendto( "HTTP/1.1 200 OK\r\nLOCATION: " .. location .. "\r\n\r\n", host, port )
end
answer "http://127.0.0.1/one.xml"
wait_for( "Found", FINDER, "http://127.0.0.1/one.xml" )
answer "http://127.0.0.1/two.xml"
wait_for( "Found", FINDER, "http://127.0.0.1/one.xml http://127.0.0.1/two.xml" )
local second_device
second_device, target = answerer()
luup.variable_set( FINDER, "Target", target, SECOND )
ok, message = start( "udp-discovery", "Finder", SECOND )
lib.check( ok, message )
answer( "http://127.0.0.1/three.xml", second_device )
wait_for( "Found", FINDER, "http://127.0.0.1/three.xml", SECOND )
invoke( "Search" )
lib.equal( variable( "Found", FINDER ), "" )
lib.equal( variable( "Found", FINDER, SECOND ), "http://127.0.0.1/three.xml" )
answer "http://127.0.0.1/four.xml"
wait_for( "Found", FINDER, "http://127.0.0.1/four.xml" )

-- A page: it is shown the switch, and turns it. Without the proxy nothing listens, and the plugin starts all the same.
local PANEL = "urn:example-com:serviceId:Panel1"
luup.variable_set( PANEL, "Port", at.listen, DEVICE )
luup.variable_set( PANEL, "Switch", 7, DEVICE )
luup.variable_set( SWITCH, "Status", "1", 7 )
local environment
ok, message, invoke, environment = start( "websocket-server", "Panel" )
lib.check( ok, message )
if not direct then
    local options = {}
    local events = engine.record( options )
    local page = assert( proxy.open( "ws://127.0.0.1:" .. at.listen .. "/switch", options ) )
    engine.run_until( function() return #events >= 1 and events[#events]:match "^message" end, "the state" )
    lib.equal( events[#events], "message 1 TEXT" )
    page:text( "0" )
    lib.equal( actions.next(), SWITCH .. " SetTarget 0 7" )
    environment[watched[key( SWITCH, "Status", 7 )]]( 7, SWITCH, "Status", "1", "0" )
    engine.run_until( function() return events[#events] == "message 0 TEXT" end, "the new state" )
    lib.equal( variable( "Pages", PANEL ), "1" )
    -- Another panel, of another switch.
    luup.variable_set( PANEL, "Port", at.second, SECOND )
    luup.variable_set( PANEL, "Switch", 8, SECOND )
    ok, message = start( "websocket-server", "Panel", SECOND )
    lib.check( ok, message )
    local other = {}
    local other_events = engine.record( other )
    local other_page = assert( proxy.open( "ws://127.0.0.1:" .. at.second .. "/switch", other ) )
    engine.run_until( function() return other_events[#other_events] == "message 0 TEXT" end, "the state of the other" )
    other_page:text( "1" )
    lib.equal( actions.next(), SWITCH .. " SetTarget 1 8" )
    lib.equal( variable( "Pages", PANEL, SECOND ), "1" )
    local before = #events
    environment[watched[key( SWITCH, "Status", 8 )]]( 8, SWITCH, "Status", "0", "1" )
    engine.run_until( function() return other_events[#other_events] == "message 1 TEXT" end, "the new state of the other" )
    lib.equal( #events, before )
    other_page:close()
    wait_for( "Pages", PANEL, "0", SECOND )
    page:close()
    wait_for( "Pages", PANEL, "0" )
end
print "ok"
