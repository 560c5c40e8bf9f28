-- The plugin of client.lua and either.lua: its connections, in one group, have their events in queues. Not a script.

local lib = require "lib"
local engine = require "engine"

local plugin = { group = {} }

-- Begins a simulated Luup at the ports that the script's arguments `at` name. Its action HandleReceive handles all connections of
-- `proxy`, an L_SockProxyClient. `direct`: the connections are made without the proxy, since nothing listens at its port. Returns
-- open( target, options ), which returns the connection, or why there is none, and the queue of its events.
function plugin.begin( proxy, at, direct )
    engine.listen( at.luup )
    proxy.defaults.port, proxy.defaults.direct, proxy.defaults.PACE = direct and at.closed or at.proxy, direct, 0
    -- The machine may be busy with other tests.
    proxy.defaults.patience, proxy.defaults.timeout = 30, 30
    engine.actions.HandleReceive = function( device, parameters )
        lib.check( not direct, "a notification without the proxy" )
        lib.equal( device, 123 )
        lib.like( parameters.serviceId, "^urn:example%-com:serviceId:Example%d+$" )
        proxy.handle( plugin.group, parameters.Pid )
    end
    return function( target, options )
        local events = engine.record( options )
        options.notify = options.notify or engine.notify { device = 123, action = "HandleReceive" }
        options.group = plugin.group
        if target:match( "^ws" ) then options.RQTM = options.RQTM or 60000 end
        options.CTIM = options.CTIM or 30000
        local conn, why = proxy.open( target, options )
        if conn and conn:is_open() then lib.equal( conn.direct, direct ) end
        return conn or why, events
    end
end

-- Opens a second connection to the test's server, by which it says how others have ended. Returns it, a
-- function that waits until the server says `words` of an end, and the queue of its events.
function plugin.watch( open, target )
    local watcher, events = open( target, {} )
    return watcher, function( words )
        repeat
            watcher:text( "next close" )
            local said = events.next():match( "^message (.*) TEXT$" )
            if said == "nobody closed" then error( "nobody closed with " .. words, 2 ) end
        until said == words
    end, events
end

return plugin
