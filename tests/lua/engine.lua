-- A simulated Luup engine inside the script: one thread that serves HTTP and runs the job of an action. Not a script.

local socket = require "socket"
local lib = require "lib"

local engine = {
    actions = {},       -- by name: function( device, parameters )
    notifications = 0,  -- the number of received notifications
    logged = {},        -- the lines that luup.log got
}

-- Tests replace LuaSocket's own.
local select_socket = socket.select

-- Seconds. Longer than a busy machine takes; a test that passes never waits for it.
local LIMIT = 60

-- The calls that luup.call_delay has to make: { at =, name =, data = }.
local delayed = {}

-- Sets the global table `luup` that a plugin's code uses. `fractions`: its timers have fractions of seconds, as openLuup's.
function engine.provide( fractions )
    rawset( _G, "luup", {
        openLuup = fractions, log = function( words ) engine.logged[#engine.logged + 1] = words end,
        call_delay = function( name, seconds, data )
            lib.check( seconds >= 0 and ( fractions or seconds % 1 == 0 ), "no delay for this engine" )
            table.insert( delayed, { at = socket.gettime() + seconds, name = name, data = data } )
        end,
    } )
end

function engine.withdraw()
    rawset( _G, "luup", nil )
    delayed = {}
end

-- Makes the calls that are due. Returns the seconds until the next one.
function engine.fire()
    local now, due, later = socket.gettime(), {}, {}
    for _, call in ipairs( delayed ) do table.insert( call.at <= now and due or later, call ) end
    delayed = later
    for _, call in ipairs( due ) do rawget( _G, call.name )( call.data ) end
    local wait = math.huge
    for _, call in ipairs( delayed ) do wait = math.min( wait, call.at - now ) end
    return math.max( wait, 0 )
end

-- The service of a plugin's action: another one with each call. A test makes many short connections, and the proxy holds
-- back the notifications of their ends if they have the same service.
local services = 0
function engine.next_service()
    services = services + 1
    return "urn:example-com:serviceId:Example" .. services
end

-- A table `notify` whose service is another one each time that it is read.
function engine.notify( fields )
    return setmetatable( fields, { __index = function( _, name ) return name == "service" and engine.next_service() or nil end } )
end

function engine.listen( port )
    engine.server = assert( socket.bind( "127.0.0.1", port ) )
end

local function decode( text )
    return ( text:gsub( "%%(%x%x)", function( digits ) return string.char( tonumber( digits, 16 ) ) end ) )
end

-- Serves one request. Returns false if none arrives in time.
function engine.serve( seconds )
    -- LuaSocket's accept() waits whole milliseconds: a caller that waits for a timer would call it again and again.
    if not select_socket( { engine.server }, nil, seconds )[1] then return false end
    local client = engine.server:accept()
    client:settimeout( LIMIT )
    local request = client:receive( "*l" )
    repeat local header = client:receive( "*l" ) until not header or header == ""
    local parameters = {}
    for name, value in ( request or "" ):match( "%?(%S*)" ):gmatch( "([^&=]+)=([^&]*)" ) do parameters[name] = decode( value ) end
    local action = engine.actions[parameters.action]
    local body = action and "{}" or "ERROR: Invalid Service"
    client:send( "HTTP/1.1 200 OK\r\nContent-Length: " .. #body .. "\r\nConnection: close\r\n\r\n" .. body )
    client:close()
    engine.notifications = engine.notifications + 1
    if action then action( tonumber( parameters.DeviceNum ), parameters ) end
    return true
end

-- Serves requests, and makes the calls that are due, until `done()` is true.
function engine.run_until( done, what )
    local stop = socket.gettime() + LIMIT
    while not done() do
        local wait = engine.fire()
        if done() then return end
        local left = stop - socket.gettime()
        if left <= 0 then error( "no notification, no timer: " .. what, 2 ) end
        -- `done` may look at sockets of the test's own, which wake nothing.
        engine.serve( math.min( left, wait, 0.1 ) )
    end
end

-- Calls `step`, which reads what has arrived, until `done()` is true, as a plugin without notifications does. `step` returns true
-- if there is more.
function engine.poll_until( connection_socket, step, done, what )
    local stop = socket.gettime() + LIMIT
    while true do
        local more = step()
        if done() then return end
        local sock = connection_socket()
        if socket.gettime() > stop or not sock then error( "timed out: " .. what, 2 ) end
        if not more then socket.select( { sock }, nil, 1 ) end
    end
end

-- Returns a queue of received items. Its `next` waits for an item.
function engine.queue()
    local queue = {}
    function queue.put( item ) queue[#queue + 1] = item end
    function queue.next( what )
        engine.run_until( function() return #queue > 0 end, what or "a message" )
        return table.remove( queue, 1 )
    end
    return queue
end

-- The callbacks of a connection, and of a listener, that are recorded.
local CONNECTION = { "on_message", "on_ping", "on_pong", "on_head", "on_close", "on_open", "on_error", "on_lost", "on_back" }
local LISTENER = { "on_lost", "on_listening" }

-- Sets callbacks of L_SockProxyClient that put their events into one queue, as words: "message hello TEXT". Returns it.
function engine.record( options, of_listener )
    local events = engine.queue()
    for _, name in ipairs( of_listener and LISTENER or CONNECTION ) do
        options[name] = function( _, ... )
            local words = { name:sub( 4 ) }
            local count = select( "#", ... )
            while count > 0 and ( select( count, ... ) ) == nil do count = count - 1 end
            for index = 1, count do words[#words + 1] = tostring( ( select( index, ... ) ) ) end
            events.put( table.concat( words, " " ) )
        end
    end
    return events
end

lib.engine = engine
return engine
