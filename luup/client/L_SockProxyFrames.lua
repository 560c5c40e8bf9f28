--- The frames of WebSocket (RFC 6455 sections 5 to 8), from the client's side and without extensions.
-- Owns how messages become bytes and bytes become messages, and the rules that a server must keep. Has no socket, no clock
-- and no source of random bytes; it does not know what a message means.
-- MIT licence; part of sockproxyd.

local Framing = require "L_SockProxyFraming"
local append = require("L_SockProxyTransport").append

local byte, char, match, rep = string.byte, string.char, string.match, string.rep

local Frames = {}

--- The opcodes by the verbs of MESG. The opcode of every further fragment is 0.
Frames.OPCODES = { TEXT = 1, BINA = 2, CLOS = 8, PING = 9, PONG = 10 }

local VERBS = { [0] = "more" }
for verb, opcode in pairs(Frames.OPCODES) do VERBS[opcode] = verb end

-- Bytes. RFC 6455 section 5.5: the payload of a control frame.
local MAX_CONTROL = 125
-- Bytes. The limit of a message if the caller sets none.
local MAX_MESSAGE = 1048576

-- Masking ----------------------------------------------------------------------------------------

-- For each number below 16, and for each multiple of 16 below 256: the table that combines a byte with it by XOR. A byte of the
-- key takes two of them, so that 31 tables of 4 KiB do for all keys. They are made when they are first needed.
local rows = setmetatable({}, {
    __index = function(known, key)
        local row, bit = { [0] = 0 }, 1
        for _ = 1, 8 do
            local is_set = key % (bit + bit) >= bit
            for low = 0, bit - 1 do
                row[low + bit] = is_set and row[low] or row[low] + bit
                if is_set then row[low] = row[low] + bit end
            end
            bit = bit + bit
        end
        known[key] = row
        return row
    end,
})

-- Combines a payload of whole blocks of 32 bytes with the key. Reading and making 32 bytes at once is faster than a table of all
-- bytes, and than gsub. It is also faster than the functions of `bit`, and as fast as those that LuaJIT compiles.
local function mask_by_tables(payload, key)
    local first, second, third, fourth = byte(key, 1, 4)
    local al, bl, cl, dl = rows[first % 16], rows[second % 16], rows[third % 16], rows[fourth % 16]
    local ah, bh = rows[first - first % 16], rows[second - second % 16]
    local ch, dh = rows[third - third % 16], rows[fourth - fourth % 16]
    local blocks, count = {}, 0
    for at = 1, #payload, 32 do
        local a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, v, w, x, y, z, A, B, C, D, E, F =
            byte(payload, at, at + 31)
        count = count + 1
        blocks[count] = char(
            al[ah[a]], bl[bh[b]], cl[ch[c]], dl[dh[d]], al[ah[e]], bl[bh[f]], cl[ch[g]], dl[dh[h]],
            al[ah[i]], bl[bh[j]], cl[ch[k]], dl[dh[l]], al[ah[m]], bl[bh[n]], cl[ch[o]], dl[dh[p]],
            al[ah[q]], bl[bh[r]], cl[ch[s]], dl[dh[t]], al[ah[u]], bl[bh[v]], cl[ch[w]], dl[dh[x]],
            al[ah[y]], bl[bh[z]], cl[ch[A]], dl[dh[B]], al[ah[C]], bl[bh[D]], cl[ch[E]], dl[dh[F]])
    end
    return table.concat(blocks)
end

-- The same for Lua 5.3 and later: eight of its integers at once. Lua 5.1 cannot parse the operator.
local INTEGERS = [[
    local pack, unpack = string.pack, string.unpack
    local size, eight = string.packsize("j"), string.rep("j", 8)
    return 8 * size, function(payload, key)
        local word = unpack("j", string.rep(key, size // 4))
        local blocks, count = {}, 0
        for at = 1, #payload, 8 * size do
            local a, b, c, d, e, f, g, h = unpack(eight, payload, at)
            count = count + 1
            blocks[count] = pack(eight, a ~ word, b ~ word, c ~ word, d ~ word, e ~ word, f ~ word, g ~ word, h ~ word)
        end
        return table.concat(blocks)
    end
]]

local block, mask_blocks = 32, mask_by_tables
local integers = (loadstring or load)(INTEGERS) -- luacheck: ignore 113
if integers then block, mask_blocks = integers() end

--- Masks a payload, or removes the mask (RFC 6455 section 5.3). `key`: four bytes.
function Frames.mask(payload, key)
    local length = #payload
    local missing = -length % block
    if missing == 0 then return mask_blocks(payload, key) end
    return (mask_blocks(payload .. rep("\0", missing), key):sub(1, length))
end

-- Encoding ---------------------------------------------------------------------------------------

-- The last `count` bytes of a number, the highest first.
local function big_endian(number, count)
    local bytes = {}
    for index = count, 1, -1 do
        local low = number % 256
        bytes[index] = char(low)
        number = (number - low) / 256
    end
    return table.concat(bytes)
end

--- Returns a frame. `final`: false if more fragments of the message follow. `key`: four bytes to mask the payload with, which a
-- client must take anew from a random source for each frame (RFC 6455 section 5.3), or nil for a frame of a server. Returns nil
-- and the reason for a control frame that is too long or not final.
function Frames.encode(opcode, payload, final, key)
    local length = #payload
    if opcode >= 8 then
        -- Section 5.5: control frames MUST have a payload of 125 bytes or less and MUST NOT be fragmented.
        if length > MAX_CONTROL then return nil, "a control frame has at most 125 bytes" end
        if final == false then return nil, "a control frame has no fragments" end
    end
    local first, flag = final == false and opcode or opcode + 128, key and 128 or 0
    local head
    -- Section 5.2: the minimal number of bytes MUST be used to encode the length.
    if length < 126 then
        head = char(first, flag + length)
    elseif length < 65536 then
        head = char(first, flag + 126) .. big_endian(length, 2)
    else
        head = char(first, flag + 127) .. big_endian(length, 8)
    end
    if not key then return head .. payload end
    return head .. key .. Frames.mask(payload, key)
end

-- UTF-8 ------------------------------------------------------------------------------------------

local Utf8 = {}
Utf8.__index = Utf8

--- Returns a checker of a text that comes in pieces.
function Frames.utf8()
    -- `rest`: the beginning of the character that the last piece did not complete.
    return setmetatable({ rest = "" }, Utf8)
end

local function is_continuation(code)
    return code >= 128 and code <= 191
end

-- Returns the position of the first byte at `at` or later that is not ASCII, or of the end. The anchored repetition is eight times
-- as fast as find("[\128-\255]"), which begins a match anew at each byte. The range comes first: %z is compared if it does not fit.
local function skip_ascii(text, at)
    return match(text, "^[\1-\127%z]*()", at)
end

-- Returns the position behind a character of two bytes and the ASCII after it, or nil.
local function skip_pair(text, at)
    return match(text, "^[\194-\223][\128-\191][\1-\127%z]*()", at)
end

-- LuaJIT compiles the loops, and not string.match.
local jit = rawget(_G, "jit")
if jit and jit.status() then
    function skip_pair() return nil end
    function skip_ascii(text, at)
        while true do
            local a, b, c, d, e, f, g, h = byte(text, at, at + 7)
            if not h or a > 127 or b > 127 or c > 127 or d > 127 or e > 127 or f > 127 or g > 127 or h > 127 then break end
            at = at + 8
        end
        while (byte(text, at) or 128) < 128 do at = at + 1 end
        return at
    end
end

-- Returns the position of the first byte that may not be UTF-8, or of the end.
local skip_valid = skip_ascii
-- Lua 5.4 has a function for that. The one of Lua 5.3 takes surrogates for valid.
local utf8_len = rawget(_G, "utf8") and rawget(_G, "utf8").len
if utf8_len and not utf8_len("\237\160\128") then
    function skip_valid(text, at)
        local count, invalid = utf8_len(text, at)
        return count and #text + 1 or invalid
    end
end

--- Checks the next piece. Returns false if the text is not UTF-8, as soon as a byte cannot belong to any character; then it does
-- so for every further piece.
function Utf8:feed(text)
    if self.invalid then return false end
    if self.rest ~= "" then text, self.rest = self.rest .. text, "" end
    local length = #text
    local at = skip_valid(text, 1)
    while at <= length do
        local first, second, third, fourth = byte(text, at, at + 3)
        local after = first < 224 and skip_pair(text, at)
        if after then
            -- The usual case: characters of two bytes, and ASCII between them.
            repeat at, after = after, skip_pair(text, after) until not after
        else
            -- RFC 3629 section 4: no overlong forms, no surrogates, nothing above U+10FFFF.
            local lower = first == 224 and 160 or first == 240 and 144 or 128
            local upper = first == 237 and 159 or first == 244 and 143 or 191
            local more = first < 224 and 1 or first < 240 and 2 or 3
            if first < 194 or first > 244 or (second and (second < lower or second > upper))
                or (third and more > 1 and not is_continuation(third)) or (fourth and more > 2 and not is_continuation(fourth)) then
                self.invalid = true
                return false
            end
            if at + more > length then
                self.rest = text:sub(at)
                return true
            end
            at = at + more + 1
            if (byte(text, at) or 128) < 128 then at = skip_ascii(text, at) end
        end
    end
    return true
end

--- True if the text may end here.
function Utf8:complete()
    return not self.invalid and self.rest == ""
end

--- True if a text is UTF-8.
function Frames.is_utf8(text)
    if skip_valid(text, 1) > #text then return true end
    local check = Frames.utf8()
    return check:feed(text) and check:complete()
end

-- Decoding ---------------------------------------------------------------------------------------

local Buffer = {}
Buffer.__index = Buffer

--- Returns a buffer for Decoder:next, for bytes that come as strings.
function Frames.buffer()
    return setmetatable({ text = "", at = 1 }, Buffer)
end

--- Appends bytes.
function Buffer:append(bytes)
    self.text, self.at = self.text:sub(self.at) .. bytes, 1
end

function Buffer:bytes(length, skipped)
    local from = self.at + (skipped or 0)
    if #self.text - from + 1 < length then return nil end
    self.at = from + length
    return self.text:sub(from, from + length - 1)
end

function Buffer:peek(count)
    return byte(self.text, self.at, self.at + count - 1)
end

function Buffer:skip(length)
    self.at = self.at + length
end

local Decoder = {}
Decoder.__index = Decoder

-- Ends the decoder: every call returns the same violation.
local function violation(self, code, words)
    self.pieces = nil
    self.stage = function() return nil, code, words end
    return nil, code, words
end

local function close(self, body)
    local code, reason = 1005, ""
    if body ~= "" then
        -- Section 5.5.1: if there is a body, the first two bytes MUST be the code.
        if #body == 1 then return violation(self, 1002, "a close frame with one byte of payload") end
        local high, low = byte(body, 1, 2)
        code, reason = high * 256 + low, body:sub(3)
        -- Section 7.4.1: 1004, 1005, 1006 and 1015 MUST NOT be set in a close frame.
        if not Framing.is_close_code(code) then return violation(self, 1002, "invalid close code: " .. code) end
        -- Section 5.5.1: the reason is UTF-8. Section 8.1: invalid UTF-8 MUST fail the connection.
        if self.utf8 and not Frames.is_utf8(reason) then return violation(self, 1007, "close reason is not UTF-8") end
    end
    -- Section 5.5.1: the application MUST NOT send any more data frames after a close frame. What still comes is not read.
    self.pieces = nil
    self.stage = function() return nil end
    return "CLOS", reason, code
end

local read_head

-- Each stage returns true if the next one can go on, and else what Decoder:next returns.
local function read_payload(self, buffer)
    local body = buffer:bytes(self.length)
    if not body then return nil end
    self.stage = read_head
    if self.key then body = Frames.mask(body, self.key) end
    if self.opcode == 8 then return close(self, body) end
    if self.opcode > 8 then return VERBS[self.opcode], body end
    local verb, pieces = self.message, self.pieces
    if verb == "TEXT" and self.utf8 then
        -- Section 8.1: a text that is not UTF-8 MUST fail the connection. A fragment may end within a character.
        local valid = self.utf8:feed(body)
        if not valid or self.final and not self.utf8:complete() then return violation(self, 1007, "a text is not UTF-8") end
    end
    if not self.final then
        self.pieces = pieces or {}
        if body ~= "" then append(self.pieces, body) end
        return true
    end
    self.message, self.pieces, self.size = false, nil, 0
    if not pieces then return verb, body end
    pieces[#pieces + 1] = body
    return verb, table.concat(pieces)
end

local function read_key(self, buffer)
    self.key = buffer:bytes(4)
    if not self.key then return nil end
    self.stage = read_payload
    return true
end

function read_head(self, buffer)
    local first, second, a, b, c, d, e, f, g, h = buffer:peek(10)
    if not second then return nil end
    local opcode, length, final = first % 16, second % 128, first > 127
    -- Section 5.2: a receiver MUST fail the connection if a reserved bit is set that no extension defines.
    if first % 128 > 15 then return violation(self, 1002, "a reserved bit is set") end
    -- Section 5.2: a receiver MUST fail the connection on an unknown opcode.
    if not VERBS[opcode] then return violation(self, 1002, "unknown opcode") end
    local is_masked = second > 127
    -- Section 5.1: a client MUST close the connection on a masked frame.
    if is_masked and not self.may_mask then return violation(self, 1002, "a masked frame") end
    if opcode > 7 then
        -- Section 5.5: control frames MUST NOT be fragmented.
        if not final then return violation(self, 1002, "a fragmented control frame") end
        -- Section 5.5: control frames MUST have a payload of 125 bytes or less.
        if length > MAX_CONTROL then return violation(self, 1002, "a control frame that is too long") end
    elseif opcode > 0 then
        -- Section 5.4: the fragments of a message MUST NOT be interleaved with those of another.
        if self.message then return violation(self, 1002, "a message inside a message") end
    elseif not self.message then
        -- Section 5.4: a continuation belongs to a message that has begun.
        return violation(self, 1002, "a continuation without a message")
    end
    local size, minimum = 2, 0
    if length == 126 then
        if not b then return nil end
        size, minimum, length = 4, 126, a * 256 + b
    elseif length == 127 then
        -- Section 5.2: the most significant bit of a length of eight bytes MUST be 0.
        if a and a > 127 then return violation(self, 1002, "a length above 2^63") end
        if not h then return nil end
        size, minimum = 10, 65536
        length = ((((((a * 256 + b) * 256 + c) * 256 + d) * 256 + e) * 256 + f) * 256 + g) * 256 + h
    end
    -- Section 5.2: the minimal number of bytes MUST be used to encode the length.
    if length < minimum then return violation(self, 1002, "a length that is not minimal") end
    if opcode < 8 then
        -- A sum may exceed the integers of Lua 5.3.
        if length > self.max - self.size then return violation(self, 1009, "the message is too long") end
        self.size = self.size + length
        if opcode > 0 then self.message = VERBS[opcode] end
    end
    buffer:skip(size)
    self.opcode, self.final, self.length, self.key = opcode, final, length, nil
    self.stage = is_masked and read_key or read_payload
    return true
end

--- Returns a decoder for the frames of one server. `options`: `max`, the bytes of a message at most, by default 1 MiB; `leniency`,
-- what the server may get wrong, as Frames.leniency returns it, by default nothing.
function Frames.decoder(options)
    options = options or {}
    local leniency = options.leniency or {}
    return setmetatable({
        max = options.max or MAX_MESSAGE, size = 0, stage = read_head, message = false,
        -- false: any text is passed on as it is.
        utf8 = not leniency.utf8 and Frames.utf8(), may_mask = leniency.mask,
    }, Decoder)
end

--- Returns what a server may get wrong: `utf8` is true if texts and the reason of a close frame need not be UTF-8, `mask` if frames
-- may be masked. `words`: those of the option LENI, a list. Returns nil if one is unknown, or if there is none.
function Frames.leniency(words)
    local leniency = {}
    for _, word in ipairs(words) do
        word = tostring(word):lower()
        if word ~= "utf8" and word ~= "mask" then return nil end
        leniency[word] = true
    end
    return next(leniency) and leniency
end

--- Takes the next message from a buffer of Frames.buffer, or from a transport. Returns:
--
-- * "TEXT", "BINA", "PING" or "PONG", and the bytes. A fragmented message is returned whole, the control frames within it before.
-- * "CLOS", the reason and the code, 1005 if the frame has none. Later calls return nil.
-- * nil if the message is incomplete.
-- * nil, a close code and the reason if the server violates the protocol. Later calls return the same.
function Decoder:next(buffer)
    if self.stage == read_head and not self.message then
        -- The usual case: a whole message in one frame of less than 64 KiB. The stages do the rest, and find the violations.
        local first, second, third, fourth = buffer:peek(4)
        if fourth and (first == 129 or first == 130) and second < 127 then
            local head, length = 2, second
            if second == 126 then head, length = 4, third * 256 + fourth end
            local body = length <= self.max and (head == 2 or length > 125) and buffer:bytes(length, head)
            if body then
                if first == 130 then return "BINA", body end
                if self.utf8 and not Frames.is_utf8(body) then return violation(self, 1007, "a text is not UTF-8") end
                return "TEXT", body
            end
        end
    end
    while true do
        local verb, detail, words = self:stage(buffer)
        if verb ~= true then return verb, detail, words end
    end
end

return Frames
