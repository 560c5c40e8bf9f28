--- One LuaSocket connection to the proxy: what comes in pieces is put together, what goes out may go in pieces.
-- Owns: the socket, the bytes that have come and are not yet a whole message, the bytes that are not yet sent. Knows
-- the three framings of FRAM and nothing of what the messages mean.
--
-- At a timeout of zero LuaSocket gives what there is of what was asked for as its third result, and has forgotten it
-- then. Here every byte is kept until the message it belongs to is whole.
-- MIT licence; part of sockproxyd.

local socket = require "socket"

local Transport = {}
Transport.__index = Transport

-- Bytes asked for at once: LuaSocket's own buffer.
local CHUNK = 8192
-- The longest header of a message in MESG, its newline included, is 64 bytes. A reply may name a long reason.
local LONGEST_HEADER, LONGEST_LINE = 64, 16384

--- Takes over a connected socket. `chunk`: bytes to ask for at once.
function Transport.new(sock, chunk)
    -- `text` from `at` on, then `later`: all that has come and was not taken, `have` bytes.
    -- `unsent` behind its first `sent` bytes: all that is to go out.
    return setmetatable({ sock = sock, chunk = chunk or CHUNK, text = "", at = 1, later = {}, have = 0, sent = 0 }, Transport)
end

-- Both clocks of LuaSocket: "b" is for each wait, "t" for all waits of one call together.
local function patience(sock, seconds)
    sock:settimeout(seconds, "b")
    sock:settimeout(seconds, "t")
end

--- Takes what the socket has: at most one chunk, at once; with `seconds` it waits so long for a first byte.
-- Returns how many bytes came, and why not more, if so: "timeout" (for now), "closed" or another error.
function Transport:fill(seconds)
    if not self.sock then return 0, "closed" end
    local wanted = self.chunk
    -- Waiting for a whole chunk would be waiting for what may never come.
    if seconds and seconds > 0 then wanted = 1 else seconds = 0 end
    patience(self.sock, seconds)
    local data, why, part = self.sock:receive(wanted)
    data = data or part or ""
    if data ~= "" then
        self.later[#self.later + 1] = data
        self.have = self.have + #data
    end
    return #data, why
end

-- Puts what has come into one string.
local function join(self)
    if #self.later == 0 then return end
    self.text, self.at = self.text:sub(self.at) .. table.concat(self.later), 1
    self.later = {}
end

--- The next `length` bytes; nil if they have not all come.
function Transport:bytes(length)
    if self.have < length then return nil end
    if #self.text - self.at + 1 < length then join(self) end
    local from = self.at
    self.at, self.have = from + length, self.have - length
    return self.text:sub(from, from + length - 1)
end

--- The next line, without its end; nil if it has not come whole, nil and why if it is over `longest` bytes.
function Transport:line(longest)
    join(self)
    -- Where there was no end before there is none now.
    local stop = self.text:find("\n", self.at + (self.searched or 0), true)
    if not stop then
        self.searched = self.have
        if longest and self.have >= longest then return nil, "a line without an end" end
        return nil
    end
    self.searched = nil
    local line = self:bytes(stop - self.at + 1):sub(1, -2)
    if longest and #line >= longest then return nil, "a line without an end" end
    return line
end

--- A reply of setup mode; as Transport:line.
function Transport:reply()
    return self:line(LONGEST_LINE)
end

-- Verb, length and, of CLOS and DGRM, the code or the address.
local function header(line)
    local verb, length = line:match("^(%u%u%u%u) (%d+)$")
    if verb then return verb ~= "CLOS" and verb ~= "DGRM" and { verb = verb, length = tonumber(length) } or nil end
    local detail
    verb, detail, length = line:match("^(CLOS) (%d+) (%d+)$")
    if verb then return { verb = verb, length = tonumber(length), detail = tonumber(detail) } end
    verb, length, detail = line:match("^(DGRM) (%d+) (%S+)$")
    if verb then return { verb = verb, length = tonumber(length), detail = detail } end
end

local readers = {}

function readers.MESG(self)
    local head = self.head
    if not head then
        local line, why = self:line(LONGEST_HEADER)
        if not line then return nil, why end
        head = header(line)
        if not head then return nil, "no header of a message: " .. line end
        self.head = head
    end
    local body = self:bytes(head.length)
    if not body then return nil end
    self.head = nil
    return head.verb, body, head.detail
end

function readers.LINE(self)
    local line = self:line()
    if line then return "TEXT", line end
end

function readers.RAW(self)
    if self.have > 0 then return "BINA", self:bytes(self.have) end
end

--- The next message in that framing: its verb, its bytes and, of CLOS, its code, of DGRM, its sender. Nil if it has not
-- come whole; nil and why if what came is none.
function Transport:message(framing)
    return readers[framing](self)
end

--- True if there are bytes that were not taken.
function Transport:pending()
    return self.have > 0
end

--- How many bytes are to go out.
function Transport:queued()
    return self.unsent and #self.unsent - self.sent or 0
end

--- Puts bytes behind those that are to go out.
function Transport:push(data)
    self.unsent = self.unsent and self.unsent:sub(self.sent + 1) .. data or data
    self.sent = 0
end

--- Sends what is to go out, and waits up to `seconds` while the proxy takes none (default: not at all). What is left stays
-- in order for the next call. Returns true if nothing is left, or nil and why: "timeout", "closed" or another error.
function Transport:flush(seconds)
    if not self.unsent then return true end
    if not self.sock then return nil, "closed" end
    patience(self.sock, seconds or 0)
    local last, why, part = self.sock:send(self.unsent, self.sent + 1)
    if not last then
        self.sent = math.max(self.sent, part or 0)
        return nil, why
    end
    self.unsent, self.sent = nil, 0
    return true
end

--- Says that nothing more will be sent.
function Transport:finish()
    if self.sock then self.sock:shutdown("send") end
end

-- Sockets that were closed here, and wait for the proxy to close, too: to close one before all was read resets the
-- connection, and what was said last may never be heard. The times of that, by their wires.
local lingering = {}
-- Seconds. The proxy takes five at most for a closing handshake.
local LONGEST_LINGER = 10

--- Closes the socket once the other side has closed: Transport.sweep looks. The wire itself has none from now on.
function Transport:linger()
    lingering[Transport.new(self.sock, self.chunk)] = socket.gettime()
    self.sock = nil
end

--- Closes the sockets that linger and are through.
function Transport.sweep()
    local now = socket.gettime()
    for wire, since in pairs(lingering) do
        local chunks = 0
        local why
        repeat
            chunks, why = chunks + 1, select(2, wire:fill())
        until why or chunks == 64
        wire.text, wire.at, wire.later, wire.have = "", 1, {}, 0
        if (why and why ~= "timeout") or now - since > LONGEST_LINGER or now < since then
            lingering[wire] = nil
            wire:close()
        end
    end
end

--- Closes the socket.
function Transport:close()
    if self.sock then self.sock:close() end
    self.sock = nil
end

return Transport
