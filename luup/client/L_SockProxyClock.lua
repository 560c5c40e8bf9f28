--- A clock that does not go back: the system's, which Lua reads alone, is set when the box has asked a time server.
-- MIT licence; part of sockproxyd.

local socket = require "socket"

local Clock = {}

local last = socket.gettime()
local now = last

--- Seconds since some time in the past. A system clock that is set back stands still for this function; one that is set forward
-- looks like time that has passed.
function Clock.now()
    local time = socket.gettime()
    if time > last then now = now + (time - last) end
    last = time
    return now
end

--- Seconds since Clock.now() gave `time`.
function Clock.since(time)
    return Clock.now() - time
end

return Clock
