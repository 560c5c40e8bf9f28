--- Polls by luup.call_delay: connections and listeners are polled without the plugin.
--
-- Owns the global function that Luup calls, which has a name of its own for each copy of the library. Where Luup does not find
-- it, the option `timer` of a connection or a listener names a function of the plugin that polls instead.
-- MIT licence; part of sockproxyd.

local Clock = require "L_SockProxyClock"

local Timer = {}

-- Seconds. Luup may call a plugin's own function EARLY too early, so a timer that is due that soon may have been the caller. A
-- timer that is LOST late never comes.
local EARLY, LOST = 0.5, 60

-- The items that are polled, by their numbers. Luup passes the number to fire().
local items, last = {}, 0
local NAME = "SockProxyClient_timer_" .. tostring(items):match("%w+$")

--- Called by Luup. `data`: the number of the item and of its timer.
local function fire(data)
    local number, serial = tostring(data):match("^(%d+) (%d+)$")
    local item = items[tonumber(number)]
    -- A timer that was replaced by an earlier one.
    if not item or item.timer.serial ~= tonumber(serial) then return end
    item.timer.due = nil
    item:poll()
end

--- True if there are timers: in Luup, and not in a script of its own.
function Timer.available()
    local luup = rawget(_G, "luup")
    return luup ~= nil and luup.call_delay ~= nil
end

--- Has Luup call `item:poll()` in so many seconds, or earlier if a timer is set already. The item has a table `options`.
function Timer.arm(item, seconds)
    if not Timer.available() then return end
    local luup = rawget(_G, "luup")
    local timer, own = item.timer, item.options.timer
    if not timer then
        last = last + 1
        timer = { number = last, serial = 0 }
        item.timer, items[last] = timer, item
        if not own then rawset(_G, NAME, fire) end
    end
    -- Vera's timers take whole seconds, those of openLuup fractions.
    if not luup.openLuup then seconds = math.ceil(seconds) end
    local now = Clock.now()
    local pending = timer.due and timer.due > now - LOST and (not own or timer.due > now + EARLY)
    if pending and timer.due <= now + seconds then return end
    timer.due, timer.serial = now + seconds, timer.serial + 1
    luup.call_delay(own or NAME, seconds, own and "" or timer.number .. " " .. timer.serial)
end

--- Ends the polls of an item.
function Timer.disarm(item)
    if item.timer then items[item.timer.number] = nil end
    item.timer = nil
end

return Timer
