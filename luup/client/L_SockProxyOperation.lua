--- An operation that takes several polls: code in a coroutine that waits for sockets without blocking Luup.
--
-- Owns the coroutine, and the socket for which it waits. Operation.wait suspends the code; Operation:step continues it. Code
-- that no operation runs waits in Operation.wait itself, and blocks.
-- MIT licence; part of sockproxyd.

local socket = require "socket"
local Clock = require "L_SockProxyClock"

local Operation = {}
Operation.__index = Operation

-- Seconds. A socket that LuaSocket's select cannot watch, such as a plugin's own table of functions, is tried at this interval.
local BLIND_INTERVAL = 0.01

-- The operation that runs now.
local current

-- Blocks until the socket is ready, for so many seconds at most. `sock`: nil to wait for the time alone.
local function block(sock, direction, seconds)
    if seconds <= 0 then return end
    if sock and not sock.getfd then seconds = math.min(seconds, BLIND_INTERVAL) end
    local watched = sock and sock.getfd and { sock } or nil
    if not watched then
        socket.sleep(seconds)
    elseif direction == "write" then
        socket.select(nil, watched, seconds)
    else
        socket.select(watched, nil, seconds)
    end
end

--- Waits until a socket is ready. `direction`: "read" or "write"; `seconds` since `started`, which Clock.now() gave: when the
-- wait ends. It may return early: the caller tries again. Returns true, or false if the time is over.
function Operation.wait(sock, direction, started, seconds)
    local left = seconds - Clock.since(started)
    if left <= 0 then return false end
    if current and coroutine.running() == current.thread then
        current.sock, current.direction, current.waits_until = sock, direction, Clock.now() + left
        coroutine.yield()
    else
        block(sock, direction, left)
    end
    return true
end

--- Returns an operation that runs `run()`.
function Operation.start(run)
    return setmetatable({ thread = coroutine.create(run) }, Operation)
end

--- Continues until the next wait. Returns false, or true and the two results of the code: nil and the reason after an error in it.
function Operation:step()
    local previous = current
    current = self
    local ok, first, second = coroutine.resume(self.thread)
    current = previous
    if not ok then
        self:cancel()
        return true, nil, tostring(first)
    end
    if coroutine.status(self.thread) ~= "dead" then return false end
    self.sock = nil
    return true, first, second
end

--- Continues for so many seconds at most, or until `enough()` is true, and blocks meanwhile. Returns as Operation:step.
function Operation:run(seconds, enough)
    local started = Clock.now()
    while true do
        local done, first, second = self:step()
        if done then return true, first, second end
        local left = seconds - Clock.since(started)
        if left <= 0 or enough and enough() then return false end
        block(self.sock, self.direction, math.min(left, math.max(self.waits_until - Clock.now(), 0.001)))
    end
end

--- Ends an operation that is not done: closes the socket for which it waits.
function Operation:cancel()
    if self.sock then self.sock:close() end
    self.sock = nil
end

return Operation
