--- Asks the program on the daemon's port what it is, and for its status, without blocking the Luup engine.
-- A probe is made of turns. Each turn waits for the program for TURN seconds at most; a healthy daemon answers
-- within the first turn. The caller makes the next turn a second later.
-- MIT licence; part of sockproxyd.

local System = require "L_SockProxySystem"

local Probe = {}
Probe.__index = Probe

-- Seconds that one turn waits at most. With everything else that a check does, it blocks Luup for less than 0.1 s.
local TURN = 0.05
-- A program that has not answered by then hangs, or is not the daemon.
local MAX_TURNS = 4
-- Bytes. Longer lines than the greeting are another program's.
local MAX_LINE = 1024
-- Bytes of STAT JSON. A connection takes about 400, and the default limit of connections is below 1000.
local MAX_STATUS = 512 * 1024
-- The highest build number that the Lua daemon answers to BILD.
local LAST_LUA_BUILD = 23068

--- Returns a new probe. `with_status` asks a daemon of this project for its STAT JSON, too.
function Probe.new(with_status)
    local self = setmetatable({ turns = 0, buffer = "", answer = { kind = "silent" } }, Probe)
    self.thread = coroutine.create(function() self:ask(with_status) end)
    return self
end

-- Only in the thread: the seconds that are left of this turn; 0 if none are.
local function left(self)
    return math.max(0, self.stop_at - self.socket.gettime())
end

-- Runs in the thread alone. Reads what has arrived, and waits for it over turns. Returns true, or false if the program has closed
-- the connection.
local function fill(self)
    while true do
        if self.socket.select({ self.sock }, nil, left(self))[1] then
            local data, why, partial = self.sock:receive(8192)
            data = data or partial or ""
            self.buffer = self.buffer .. data
            if data ~= "" then return true end
            if why ~= "timeout" then return false end
        end
        if left(self) == 0 then coroutine.yield() end
    end
end

-- Only in the thread: returns the next line, or nil.
local function line(self)
    while true do
        local text, rest = self.buffer:match("^(.-)\r?\n(.*)$")
        if text then
            self.buffer = rest
            return text
        end
        if #self.buffer > MAX_LINE or not fill(self) then return nil end
    end
end

-- Only in the thread: returns so many bytes, or nil.
local function bytes(self, count)
    while #self.buffer < count do
        if not fill(self) then return nil end
    end
    return self.buffer:sub(1, count)
end

-- The thread: fills self.answer.
function Probe:ask(with_status)
    local answer = self.answer
    self.sock:settimeout(0)
    local connected, why = self.sock:connect(System.daemon_address())
    if not connected then
        if why == "timeout" or tostring(why):match("in progress") then
            -- The backlog of a program that hangs fills up, and connecting then takes for ever: the port is in
            -- use all the same.
            while true do
                local _, writable = self.socket.select(nil, { self.sock }, left(self))
                if writable[1] then break end
                coroutine.yield()
            end
            connected = self.sock:getpeername()
        end
        if not connected then
            answer.kind = "none"
            return
        end
    end
    local greeting = line(self)
    answer.kind = greeting and "other" or answer.kind
    answer.protocol = tonumber((greeting or ""):match("^OK TOGGLEDBITS%-SOCKPROXY (%d+)"))
    if not answer.protocol then return end
    answer.kind = "lua"
    self.sock:send("BILD\n")
    -- Releases of the Lua daemon that do not know BILD close the connection here.
    answer.build = tonumber(((line(self) or ""):match("^OK (%d+)$")))
    if (answer.build or 0) <= LAST_LUA_BUILD then return end
    answer.kind = "ours"
    if not with_status then return end
    self.sock:send("STAT JSON\n")
    local size = tonumber((line(self) or ""):match("^OK STAT (%d+)$"))
    if size and size <= MAX_STATUS then answer.status = bytes(self, size) end
end

--- Makes a turn. Returns the answer, or nil if the program has not answered yet: call it again a second later.
-- The answer is a table: `kind` is "none" (the port is closed), "ours", "lua" (the Lua daemon), "silent" or
-- "other" (another program); `build` and `protocol` are numbers, or nil if unknown; `status` is the text of
-- STAT JSON, or nil.
function Probe:step()
    if not self.sock then
        self.socket = require "socket"
        self.sock = self.socket.tcp()
    end
    self.turns = self.turns + 1
    self.stop_at = self.socket.gettime() + TURN
    local ok, why = coroutine.resume(self.thread)
    if not ok then
        self:close()
        error(why, 0)
    end
    if coroutine.status(self.thread) ~= "dead" and self.turns < MAX_TURNS then return nil end
    self:close()
    return self.answer
end

--- Ends the probe early.
function Probe:close()
    -- No QUIT: the side that closes first keeps the port in TIME_WAIT for a minute, which would keep the Lua
    -- daemon from starting again.
    if self.sock then self.sock:close() end
end

return Probe
