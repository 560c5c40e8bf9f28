-- The processor time that a plugin takes for each message over wss: with LuWS, or with the client library in LuWS's place.
--
-- usage: lua5.1 client_cpu.lua side=SIDE server=PORT proxy=PORT luup=PORT luws=PATH [pace=SECONDS] [only=WORKLOAD],
-- in this directory
--
-- SIDE is one of:
--
--   bare            no library: the calls of LuaSocket that bytes through the proxy need at least
--   luws            LuWS and LuaSec
--   alone           the client library without the proxy
--   proxy           the client library through the proxy
--   luws-notified   LuWS and LuaSec through the proxy's bytes, as SockProxy's documentation shows it, with notifications
--   proxy-notified  the client library through the proxy, with notifications
--
-- Without notifications the script waits for the socket, which takes as much for each side. With them it is Luup, too: it serves
-- the requests of the proxy and makes the calls of luup.call_delay. Prints a line for each workload: its name, microseconds for
-- each message, and with notifications how many of these Luup took, and the number of requests.

package.path = "../../tests/lua/?.lua;" .. package.path
local socket = require "socket"
local lib = require "lib"
local engine = require "engine"

local given = lib.arguments()
local side = given.side
local is_luws, notified = side:match( "^luws" ) ~= nil, side:match( "notified$" ) ~= nil

local MESSAGES = 1000
local BODY = ( "y" ):rep( 1023 )

-- Luup, of which the plugin's part is counted apart ---------------------------------------------

-- Seconds of os.clock() in the plugin's own functions, and since when it runs, if it does.
local spent, entered = 0, nil

-- Calls a function of the plugin.
local function plugin( run, ... )
    if entered then return run( ... ) end
    entered = os.clock()
    local first, second = run( ... )
    spent, entered = spent + os.clock() - entered, nil
    return first, second
end

local SERVICE = "urn:example-com:serviceId:Bench1"
if notified then
    engine.listen( given.luup )
    engine.provide( true )
end

-- The connection --------------------------------------------------------------------------------

-- What a side has: `send( data )`; `receive()`, which takes what has come; and `close()`. `watched`: the socket, in a list.
local send, receive, close, watched
local received = 0

local function open_bare()
    local sock = assert( socket.connect( "127.0.0.1", given.proxy ) )
    assert( sock:receive( "*l" ) )
    assert( sock:send( "CONN wss://127.0.0.1:" .. given.server .. "/ VRFY=none\n" ) )
    assert( sock:receive( "*l" ):match( "^OK CONN" ) )
    sock:settimeout( 0 )
    sock:setoption( "tcp-nodelay", true )
    watched = { sock }
    local bytes, message = 0, #"TEXT 1024\n" + 1024
    function send( data )
        local frame = "TEXT " .. #data .. "\n" .. data
        local sent, why, last = sock:send( frame )
        while why == "timeout" do
            socket.select( nil, watched )
            sent, why, last = sock:send( frame, last + 1 )
        end
        assert( sent, why )
    end
    function receive()
        -- Longer reads cost less for each byte.
        local data, why, part = sock:receive( 32768 )
        assert( data or why == "timeout", why )
        bytes = bytes + #( data or part )
        received = math.floor( bytes / message )
    end
    function close() sock:close() end
    return function() bytes = 0 end
end

local function open_library()
    local library
    local options = { max_payload_size = 1000000 }
    if is_luws then
        assert( loadfile( given.luws ) )()
        library = rawget( _G, "luws" )
    else
        library = require "L_SockProxy_LuWS"
    end
    if side == "luws-notified" then
        lib.redirect( 2504, given.proxy )
        options.connect = lib.documented_connect( 1, SERVICE, "Receive" )
    elseif not is_luws then
        options.ssl_verify, options.log = "none", function() end
        -- At port 1 there is no proxy.
        options.port = side == "alone" and 1 or given.proxy
        if notified then options.notify, options.PACE = { device = 1, service = SERVICE, action = "Receive" }, given.pace end
    end
    local connection = assert( library.wsopen( "wss://127.0.0.1:" .. given.server .. "/", function( _, opcode, data )
        if not opcode then error( "the connection has ended: " .. tostring( data ), 0 ) end
        received = received + 1
    end, options ) )
    watched = { is_luws and connection.socket or connection.conn:sock() }
    function send( data ) assert( library.wssend( connection, 1, data ) ) end
    function receive()
        repeat local more = library.wsreceive( connection ) until not more
    end
    function close() library.wsclose( connection ) end
end

local reset = ( side == "bare" and open_bare or open_library )()
engine.actions.Receive = function() plugin( receive ) end

-- Luup's timers call global functions by their names: those are the plugin's, too.
if notified then
    local call_delay = luup.call_delay
    luup.call_delay = function( name, seconds, data )
        local counted = "counted_" .. name
        if not rawget( _G, counted ) then
            rawset( _G, counted, function( ... ) plugin( rawget( _G, name ), ... ) end )
        end
        call_delay( counted, seconds, data )
    end
end

-- Waits until so many messages have come.
local function wait_for( count )
    local function done() return received >= count end
    if notified then return engine.run_until( done, "messages" ) end
    while not done() do
        assert( socket.select( watched, nil, 30 )[1], "no message for 30 s" )
        receive()
    end
end

-- The workloads ---------------------------------------------------------------------------------

-- What the peer does is in lua_clients.rs: "s" is read, "e" comes back, and "push COUNT MICROSECONDS OPCODE" brings messages at
-- this interval.
local workloads = {
    { "send", function()
        for _ = 1, MESSAGES - 1 do plugin( send, "s" .. BODY ) end
        -- Everything before has been sent when this one comes back.
        plugin( send, "e" .. BODY )
        wait_for( 1 )
    end },
    { "echo", function()
        for count = 1, MESSAGES do
            plugin( send, "e" .. BODY )
            wait_for( count )
        end
    end },
    { "bulk receive", function()
        plugin( send, "push " .. MESSAGES .. " 0 1" )
        wait_for( MESSAGES )
    end },
    -- These need not be UTF-8.
    { "bulk receive, binary", function()
        plugin( send, "push " .. MESSAGES .. " 0 2" )
        wait_for( MESSAGES )
    end },
    { "paced receive", function()
        plugin( send, "push " .. MESSAGES .. " 3000 1" )
        wait_for( MESSAGES )
    end },
}

-- What is done for the first time takes longer.
for _ = 1, 20 do
    local count = received + 1
    send( "e" .. BODY )
    wait_for( count )
end
local function measure( name, run )
    received, spent, engine.notifications = 0, 0, 0
    if reset then reset() end
    collectgarbage()
    collectgarbage()
    local start = os.clock()
    run()
    local all = os.clock() - start
    local each = 1000000 / MESSAGES
    if notified then
        print( string.format( "%s: %.2f %.2f %d", name, spent * each, ( all - spent ) * each, engine.notifications ) )
    else
        print( string.format( "%s: %.2f", name, all * each ) )
    end
end
for _, workload in ipairs( workloads ) do
    if not given.only or given.only == workload[1] then measure( workload[1], workload[2] ) end
end
close()
