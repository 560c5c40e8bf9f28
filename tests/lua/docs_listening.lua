-- Runs the Lua examples of docs/listening.md, each as it stands there. Their clients connect through the same proxy.
--
-- usage: lua5.1 docs_listening.lua NAME=VALUE..., in this directory; see tests/e2e/websocket/lua_clients.rs

local lib = require "lib"
local engine = require "engine"

local at = lib.arguments()
engine.listen( at.luup )
local proxy = require "L_SockProxyClient"
proxy.defaults.port, proxy.defaults.patience, proxy.defaults.timeout = at.proxy, 30, 30
proxy.defaults.PACE, proxy.defaults.direct = 0, false

-- The examples by their headings.
local examples = {}
local file = assert( io.open( "../../docs/listening.md" ) )
local document = file:read( "*a" )
file:close()
for section in document:gsub( "\n## ", "\1" ):gmatch( "\1([^\1]+)" ) do
    examples[section:match( "^[^\n]+" )] = section:match( "\n```lua\n(.-)```" )
end

-- The clients, which no plugin of the examples knows.
local group = {}
local function client( port, path, options )
    options.timeout, options.group, options.RQTM = 0, group, 60000
    options.notify = engine.notify { device = 7, action = "Client" }
    local events = engine.record( options )
    return lib.check( proxy.open( "ws://127.0.0.1:" .. port .. path, options ) ), events
end
engine.actions.Client = function( _, parameters ) proxy.handle( group, parameters.Pid ) end

-- Runs an example in the place of a plugin with these variables. Returns the plugin's environment.
local ports = { ["8081"] = at.listen, ["8082"] = at.second, ["8083"] = at.third }
local function run( heading, variables )
    local text = lib.check( examples[heading], "no example: " .. heading )
    local logged, watched, actions = {}, {}, engine.queue()
    local plugin
    plugin = setmetatable( {
        device = 123, SID = "urn:example-com:serviceId:Example1", logged = logged, watched = watched, actions = actions, luup = {
            log = function( words ) logged[#logged + 1] = words end,
            variable_get = function( _, name ) return variables[name] end,
            variable_set = function( _, name, value ) variables[name] = tostring( value ) end,
            variable_watch = function( name ) watched[#watched + 1] = name end,
            call_action = function( service, action, arguments, device )
                actions.put( table.concat( { service, action, arguments.newTargetValue, device }, " " ) )
            end,
        },
    }, { __index = _G } )
    -- The library calls Luup by the global table.
    engine.provide()
    local call_delay = luup.call_delay
    luup.log = plugin.luup.log
    luup.call_delay = function( name, seconds, data )
        if name:match( "^SockProxyClient_timer_" ) then plugin.timer = seconds end
        call_delay( name, seconds, data )
    end
    for port, instead in pairs( ports ) do
        local count
        text, count = text:gsub( port, tostring( instead ) )
        if count > 0 then plugin.port = instead end
    end
    lib.load_in( plugin, text, heading )()
    lib.equal( table.concat( logged, ";" ), "" )
    -- The library polls, too.
    -- After a second if the proxy has not answered yet.
    lib.check( plugin.timer == 5 or plugin.timer == 1, plugin.timer )
    engine.actions.HandleReceive = function( device, parameters ) plugin.handleReceive( device, parameters ) end
    plugin.handleReceive( "" )
    return plugin
end

-- A page that shows a switch.
lib.check( select( 2, examples["A page that shows a switch"]:gsub( "[^\n]+", "" ) ) <= 30, "more than thirty lines" )
local variables = { Status = "1" }
local plugin = run( "A page that shows a switch", variables )
lib.equal( table.concat( plugin.watched ), "switchChanged" )
local page, events = client( plugin.port, "/switch", { ORIG = "http://192.168.1.5:3480" } )
lib.equal( events.next() .. events.next(), "openmessage 1 TEXT" )
local other, others = client( plugin.port, "/switch", { ORIG = "http://192.168.1.5:3480" } )
lib.equal( others.next() .. others.next(), "openmessage 1 TEXT" )
page:text( "0" )
lib.equal( plugin.actions.next(), "urn:upnp-org:serviceId:SwitchPower1 SetTarget 0 123" )
plugin.switchChanged( 123, "", "Status", "1", "0" )
lib.equal( events.next() .. others.next(), "message 0 TEXTmessage 0 TEXT" )
-- A page that has closed gets nothing more.
other:close()
engine.run_until( function()
    plugin.switchChanged( 123, "", "Status", "0", "1" )
    return events.next() == "message 1 TEXT"
end, "a state" )
local _, refused = client( plugin.port, "/switch", { ORIG = "http://example.com" } )
lib.like( refused.next(), "^error BAD_HTTP_STATUS 403" )
page:close()
plugin.listener:close()

-- A device that connects to the plugin, over a reload of Luup.
variables = {}
plugin = run( "A device that connects to the plugin", variables )
local appliance, told = client( plugin.port, "/device", {} )
lib.equal( told.next(), "open" )
appliance:text( "one" )
engine.run_until( function() return plugin.logged[1] end, "one" )
lib.equal( variables.ProxySeen, "1" )
plugin.conn.channel:close()
plugin.listener.transport:close()
appliance:text( "two" )
appliance:text( "three" )
plugin = run( "A device that connects to the plugin", variables )
lib.equal( plugin.conn.kept, true )
engine.run_until( function() return plugin.logged[2] end, "two and three" )
lib.equal( table.concat( plugin.logged, ";" ), "two;three" )
-- The device connects again, before its old connection has ended.
local again, answers = client( plugin.port, "/device", {} )
lib.equal( answers.next(), "open" )
lib.like( told.next(), "^close 1001" )
again:text( "four" )
engine.run_until( function() return plugin.logged[3] end, "four" )
lib.equal( plugin.logged[3], "four" )
lib.equal( variables.ProxySeen, "1" )
again:close()
plugin.conn:close()
plugin.listener:close()

-- A plugin for turbo.
plugin = run( "A plugin for turbo", {} )
local greeted
_, refused = client( plugin.port, "/greet", {} )
lib.like( refused.next(), "^error BAD_HTTP_STATUS 403" )
greeted, events = client( plugin.port, "/greet?token=secret", {} )
lib.equal( events.next(), "open" )
greeted:text( "hello" )
lib.equal( events.next(), "message You said hello TEXT" )
greeted:close()

print "ok"
