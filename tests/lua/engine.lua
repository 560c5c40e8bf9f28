-- A simulated Luup engine inside the script: one thread that serves HTTP and runs the job of an action. Not a script.

local socket = require "socket"
local lib = require "lib"

local engine = {
    actions = {},       -- by name: function( device, parameters )
    notifications = 0,  -- the number of received notifications
    logged = {},        -- the lines that luup.log got
}

-- Seconds. Longer than a busy machine takes; a test that passes never waits for it.
local LIMIT = 60

-- Sets the global table `luup` that a plugin's code uses.
function engine.provide()
    rawset( _G, "luup", { log = function( words ) engine.logged[#engine.logged + 1] = words end } )
end

function engine.withdraw() rawset( _G, "luup", nil ) end

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
    engine.server:settimeout( seconds )
    local client = engine.server:accept()
    if not client then return false end
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

-- Serves requests until `done()` is true.
function engine.run_until( done, what )
    local stop = socket.gettime() + LIMIT
    while not done() do
        local left = stop - socket.gettime()
        if left <= 0 or not engine.serve( left ) then error( "no notification: " .. what, 2 ) end
    end
end

-- Calls `step`, which reads what has arrived, until `done()` is true, as a plugin without notifications does.
function engine.poll_until( connection_socket, step, done, what )
    local stop = socket.gettime() + LIMIT
    while true do
        step()
        if done() then return end
        local sock = connection_socket()
        if socket.gettime() > stop or not sock then error( "timed out: " .. what, 2 ) end
        socket.select( { sock }, nil, 1 )
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
local CONNECTION = { "on_message", "on_ping", "on_pong", "on_head", "on_close", "on_open", "on_error" }
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
