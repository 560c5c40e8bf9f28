--- The loop of scripts outside of Luup: waits for the sockets of a group of connections, and polls them. L_SockProxyClient.loop is
-- this function.
--
-- Owns how long a script may wait. Loaded only where a script calls it.
-- MIT licence; part of sockproxyd.

local socket = require "socket"
local Clock = require "L_SockProxyClock"
local Transport = require "L_SockProxyTransport"

-- The seconds that a script may wait for the sockets of a group.
local function longest_wait(group)
    -- The sockets do not wake the script when they can send, or when a ping or a timeout is due: it polls once a second for that.
    -- If all connections are closed, it polls to send what they had queued.
    local seconds = next(group) and 1 or 0.1
    for connection in pairs(group) do
        local direct = connection.direct or connection.state == "connecting"
        if connection.more then return 0 end
        if direct then seconds = math.min(seconds, 0.1) end
    end
    return seconds
end

-- Polls a group until its last connection and listener have closed and what they had queued is sent, until `done()` is true or
-- until `seconds` have passed. `handle(group)` polls all of them. Returns true, or false if the time has passed.
return function(group, done, seconds, handle)
    local started = Clock.now()
    while (next(group) or select(2, Transport.close_lingering())) and not (done and done()) do
        local sockets, left = {}, seconds and seconds - Clock.since(started)
        if left and left <= 0 then return false end
        for connection in pairs(group) do
            local sock = connection:sock()
            if sock and sock.getfd then sockets[#sockets + 1] = sock end
        end
        local wait = longest_wait(group)
        socket.select(sockets, nil, math.min(left or wait, wait))
        handle(group)
    end
    return true
end
