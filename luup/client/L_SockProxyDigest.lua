--- SHA-1 and base64 for the opening handshake of WebSocket (RFC 6455 section 4).
-- Owns how words of 32 bits are combined in a Lua that may have no operators for bits. Needs no other module. SHA-1 is no
-- protection here: the handshake uses it to recognise a server that speaks WebSocket.
-- MIT licence; part of sockproxyd.

local Digest = {}

local WORD = 4294967296 -- 2^32

-- The functions of FIPS 180-4 section 4.1.1 for Lua 5.3 and later. Lua 5.1 cannot parse these operators.
local OPERATORS = [[
    return function(x, y, z) return z ~ x & (y ~ z) end,
        function(x, y, z, w) return x ~ y ~ z ~ (w or 0) end,
        function(x, y, z) return x & y | z & (x | y) end
]]

-- The same with the functions of LuaJIT, LuaBitOp or bit32. The first two return signed words.
local function of_library(bit)
    local band, bor, bxor = bit.band, bit.bor, bit.bxor
    return function(x, y, z) return bxor(z, band(x, bxor(y, z))) % WORD end,
        function(x, y, z, w) return bxor(x, y, z, w or 0) % WORD end,
        function(x, y, z) return bor(band(x, y), band(z, bor(x, y))) % WORD end
end

-- Returns the tables of AND and of XOR for two numbers below 16: xor[x][y]. They are made by doubling, because each `%` takes
-- microseconds on a processor without floating point.
local function nibble_tables()
    local both, xor = { [0] = { [0] = 0 } }, { [0] = { [0] = 0 } }
    for _, bit in ipairs { 1, 2, 4, 8 } do
        for x = 0, bit - 1 do
            both[x + bit], xor[x + bit] = {}, {}
            for y = 0, bit - 1 do
                local common, differing = both[x][y], xor[x][y]
                both[x][y + bit], both[x + bit][y], both[x + bit][y + bit] = common, common, common + bit
                xor[x][y + bit], xor[x + bit][y], xor[x + bit][y + bit] = differing + bit, differing + bit, differing
            end
        end
    end
    return both, xor
end

-- Returns a function of three or four words that applies a function of numbers below 16 to each four bits.
local function by_nibbles(combine)
    return function(x, y, z, w)
        local result, place = 0, 1
        for _ = 1, 8 do
            local a, b, c, d = x % 16, y % 16, z % 16, nil
            if w then
                d = w % 16
                w = (w - d) * 0.0625
            end
            result = result + combine(a, b, c, d) * place
            x, y, z, place = (x - a) * 0.0625, (y - b) * 0.0625, (z - c) * 0.0625, place * 16
        end
        return result
    end
end

-- The same in arithmetic. The tables are freed after each digest.
local function of_arithmetic()
    local both, xor = nibble_tables()
    return by_nibbles(function(x, y, z) return xor[z][both[x][xor[y][z]]] end),
        by_nibbles(function(x, y, z, w) return xor[xor[x][y]][xor[z][w or 0]] end),
        by_nibbles(function(x, y, z) return xor[both[x][y]][both[z][xor[x][y]]] end)
end

-- Returns Ch, Parity and Maj for this Lua. Parity takes three words or four.
local function functions()
    local operators = (loadstring or load)(OPERATORS) -- luacheck: ignore 113
    if operators then return operators() end
    for _, name in ipairs { "bit", "bit32" } do
        local found, bit = pcall(require, name)
        if found and type(bit) == "table" and bit.bxor then return of_library(bit) end
    end
    return of_arithmetic()
end

local floor = math.floor

-- FIPS 180-4 section 3.2: rotates a word to the left; `places` is the power of two. Exact in doubles, which only scale.
local function rotate(word, places)
    return word * places % WORD + floor(word / (WORD / places))
end

-- The bytes of a word.
local function bytes_of(word)
    return string.char(floor(word / 16777216), floor(word / 65536) % 256, floor(word / 256) % 256, word % 256)
end

--- Returns the SHA-1 of a string, shorter than 512 MiB, as 20 bytes (FIPS 180-4 section 6.1).
function Digest.sha1(text)
    local choose, parity, majority = functions()
    local a0, b0, c0, d0, e0 = 1732584193, 4023233417, 2562383102, 271733878, 3285377520
    -- FIPS 180-4 section 5.1.1: a bit of one, zeros, and the length in bits.
    local padded = text .. "\128" .. string.rep("\0", (55 - #text) % 64 + 4) .. bytes_of(#text * 8)
    for block = 1, #padded, 64 do
        local words = {}
        for index = 1, 16 do
            local first, second, third, fourth = padded:byte(block + index * 4 - 4, block + index * 4 - 1)
            words[index] = first * 16777216 + second * 65536 + third * 256 + fourth
        end
        for index = 17, 80 do
            words[index] = rotate(parity(words[index - 3], words[index - 8], words[index - 14], words[index - 16]), 2)
        end
        local a, b, c, d, e = a0, b0, c0, d0, e0
        for index = 1, 80 do
            local mixed
            if index <= 20 then
                mixed = choose(b, c, d) + 1518500249
            elseif index <= 40 then
                mixed = parity(b, c, d) + 1859775393
            elseif index <= 60 then
                mixed = majority(b, c, d) + 2400959708
            else
                mixed = parity(b, c, d) + 3395469782
            end
            a, b, c, d, e = (rotate(a, 32) + mixed + e + words[index]) % WORD, a, rotate(b, 1073741824), c, d
        end
        a0, b0, c0, d0, e0 = (a0 + a) % WORD, (b0 + b) % WORD, (c0 + c) % WORD, (d0 + d) % WORD, (e0 + e) % WORD
    end
    return bytes_of(a0) .. bytes_of(b0) .. bytes_of(c0) .. bytes_of(d0) .. bytes_of(e0)
end

local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

--- Returns a string in base64 (RFC 4648 section 4), with padding and on one line.
function Digest.base64(text)
    local encoded = text:gsub("..?.?", function(group)
        local first, second, third = group:byte(1, 3)
        local bits = first * 65536 + (second or 0) * 256 + (third or 0)
        local digits = {}
        for index, place in ipairs { 262144, 4096, 64, 1 } do
            local digit = floor(bits / place) % 64 + 1
            digits[index] = index <= #group + 1 and ALPHABET:sub(digit, digit) or "="
        end
        return table.concat(digits)
    end)
    return encoded
end

return Digest
