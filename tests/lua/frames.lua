-- The frames of WebSocket and SHA-1, without a server: RFC 6455's examples, every violation, and bytes in all pieces.
--
-- usage: lua5.1 frames.lua, in this directory

local lib = require "lib"
local fakes = require "fakes"
local Transport = require "L_SockProxyTransport"

local function unhex( text )
    return ( text:gsub( "%s", "" ):gsub( "..", function( digits ) return string.char( tonumber( digits, 16 ) ) end ) )
end

local function hex( bytes )
    return ( bytes:gsub( ".", function( byte ) return string.format( "%02x", byte:byte() ) end ) )
end

-- Loads a module as in a Lua with this library for bits, or with none.
local function load_with( name, bits )
    package.loaded[name] = nil
    for _, known in ipairs { "bit", "bit32" } do
        package.loaded[known] = nil
        package.preload[known] = function() return bits and bits[known] or error( "none" ) end
    end
    return require( name )
end

-- SHA-1 -----------------------------------------------------------------------------------------

-- A library as LuaBitOp: its results have a sign, and its functions take any number of words.
local function library_for_bits( is_signed )
    local function each( combine )
        return function( first, ... )
            local result = first % 4294967296
            for _, word in ipairs { ... } do
                local joined, place = 0, 1
                word = word % 4294967296
                for _ = 1, 32 do
                    if combine( result % 2, word % 2 ) then joined = joined + place end
                    result, word, place = math.floor( result / 2 ), math.floor( word / 2 ), place * 2
                end
                result = joined
            end
            return is_signed and result >= 2147483648 and result - 4294967296 or result
        end
    end
    return {
        band = each( function( a, b ) return a + b == 2 end ), bor = each( function( a, b ) return a + b > 0 end ),
        bxor = each( function( a, b ) return a ~= b end ),
    }
end

-- Without a library, with each kind, and with that of this Lua.
local has_bit, real_bit = pcall( require, "bit" )
if not has_bit then real_bit = nil end
for _, bits in ipairs { {}, { bit = library_for_bits( true ) }, { bit32 = library_for_bits( false ) }, { bit = real_bit } } do
    local Digest = load_with( "L_SockProxyDigest", bits )
    -- The examples of FIPS 180, and lengths around one block.
    for text, digest in pairs {
        [""] = "da39a3ee5e6b4b0d3255bfef95601890afd80709",
        ["abc"] = "a9993e364706816aba3e25717850c26c9cd0d89d",
        ["abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"] = "84983e441c3bd26ebaae4aa1f95129e5e54670f1",
        ["abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrstu"] =
            "a49b2446a02c645bf419f995b67091253a04a259",
        [string.rep( "a", 55 )] = "c1c8bbdc22796e28c0e15163d20899b65621d65a",
        [string.rep( "a", 64 )] = "0098ba824b5c16427bd7a1122a5a442a25ec644d",
        [string.rep( "a", 56 )] = "c2db330f6083854c99d4b5bfb6e8f29f201be699",
        [string.rep( "\255", 65 )] = "bf0822f91c1aeaee3a06c8a6c598b0229e7fb2f3",
    } do
        lib.equal( hex( Digest.sha1( text ) ), digest )
    end
    -- RFC 6455 section 1.3.
    local accept = Digest.sha1( "dGhlIHNhbXBsZSBub25jZQ==258EAFA5-E914-47DA-95CA-C5AB0DC85B11" )
    lib.equal( Digest.base64( accept ), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" )
end
-- The third example of FIPS 180: a million bytes, with what this Lua has.
package.preload.bit, package.preload.bit32 = nil, nil
package.loaded.bit = real_bit
package.loaded.L_SockProxyDigest = nil
local Digest = require "L_SockProxyDigest"
if has_bit or _VERSION ~= "Lua 5.1" then
    lib.equal( hex( Digest.sha1( string.rep( "a", 1000000 ) ) ), "34aa973cd4c4daa4f61eeb2bdbad27316534016f" )
end
-- RFC 4648 section 10.
for text, encoded in pairs {
    [""] = "", f = "Zg==", fo = "Zm8=", foo = "Zm9v", foob = "Zm9vYg==", fooba = "Zm9vYmE=", foobar = "Zm9vYmFy",
} do
    lib.equal( Digest.base64( text ), encoded )
end
lib.equal( Digest.base64( "\0\255\254\251\n\0" ), "AP/++woA" )

local Frames = require "L_SockProxyFrames"

-- Masking ---------------------------------------------------------------------------------------

-- Combines two bytes by XOR.
local function xor( a, b )
    local result, place = 0, 1
    for _ = 1, 8 do
        if a % 2 ~= b % 2 then result = result + place end
        a, b, place = math.floor( a / 2 ), math.floor( b / 2 ), place * 2
    end
    return result
end

local every_byte = {}
for code = 0, 255 do every_byte[code + 1] = string.char( code ) end
every_byte = table.concat( every_byte )
for code = 0, 255 do
    local masked = Frames.mask( every_byte, string.char( code, 255 - code, 0, code ) )
    for at = 1, 256 do
        local key = ( { code, 255 - code, 0, code } )[( at - 1 ) % 4 + 1]
        if masked:byte( at ) ~= xor( at - 1, key ) then error( "byte " .. at .. " with " .. code ) end
    end
end
local long = string.rep( every_byte, 40 )
for length = 0, 200 do
    local payload = long:sub( 1, length )
    local masked = Frames.mask( payload, "\1\128\255\16" )
    lib.equal( #masked, length )
    lib.equal( Frames.mask( long, "\1\128\255\16" ):sub( 1, length ), masked )
    lib.equal( Frames.mask( masked, "\1\128\255\16" ), payload )
end

-- Encoding --------------------------------------------------------------------------------------

-- RFC 6455 section 5.7.
lib.equal( hex( Frames.encode( 1, "Hello", true ) ), "810548656c6c6f" )
lib.equal( hex( Frames.encode( 1, "Hello", true, "\55\250\33\61" ) ), "818537fa213d7f9f4d5158" )
lib.equal( hex( Frames.encode( 1, "Hel", false ) .. Frames.encode( 0, "lo", true ) ), "010348656c" .. "80026c6f" )
lib.equal( hex( Frames.encode( 9, "Hello" ) ), "890548656c6c6f" )
lib.equal( hex( Frames.encode( 10, "Hello", true, "\55\250\33\61" ) ), "8a8537fa213d7f9f4d5158" )
local bytes_256, bytes_65536 = string.rep( "\0", 256 ), string.rep( "x", 65536 )
lib.equal( Frames.encode( 2, bytes_256, true ), unhex "827e0100" .. bytes_256 )
lib.equal( Frames.encode( 2, bytes_65536, true ), unhex "827f0000000000010000" .. bytes_65536 )
for length, head in pairs {
    [0] = "8200", [1] = "8201", [125] = "827d", [126] = "827e007e", [65535] = "827effff", [65536] = "827f0000000000010000",
} do
    lib.equal( Frames.encode( 2, bytes_65536:sub( 1, length ) ), unhex( head ) .. bytes_65536:sub( 1, length ) )
end
for _, opcode in ipairs { 8, 9, 10 } do
    lib.equal( #Frames.encode( opcode, string.rep( "x", 125 ) ), 127 )
    lib.equal( Frames.encode( opcode, string.rep( "x", 126 ) ), nil )
    lib.equal( Frames.encode( opcode, "x", false ), nil )
end

-- Decoding --------------------------------------------------------------------------------------

-- Decodes bytes that come in these pieces, and returns all messages and the violation as one string. `chunk`: bytes of one read;
-- then two reads come before the decoder, so that messages lie across them.
local function read( pieces, options, chunk )
    local transport, decoder, got = Transport.new( fakes.socket( pieces, "closed" ), chunk ), Frames.decoder( options ), {}
    while true do
        local _, why = transport:fill()
        if chunk and not why then _, why = transport:fill() end
        while true do
            local verb, body, detail = decoder:next( transport )
            if not verb and body then
                -- A decoder stays at the violation.
                local again, code, words = decoder:next( transport )
                lib.check( again == nil and code == body and words == detail, "another result after a violation" )
                return table.concat( got ) .. "!" .. body .. " " .. detail
            end
            if not verb then break end
            got[#got + 1] = verb .. ( detail and "(" .. detail .. ")" or "" ) .. "[" .. body .. "]"
        end
        if why == "closed" then return table.concat( got ) end
    end
end

-- The result of bytes that come at once, byte by byte, and in two pieces at every split.
local function decoded( bytes, options )
    local result, single = read( { bytes }, options ), {}
    for at = 1, #bytes do single[at] = bytes:sub( at, at ) end
    lib.equal( read( single, options ), result )
    for at = 1, #bytes - 1 do lib.equal( read( { bytes:sub( 1, at ), bytes:sub( at + 1 ) }, options ), result ) end
    for at = 1, #bytes - 1 do lib.equal( read( { bytes }, options, at ), result ) end
    return result
end

local function text( payload, final ) return Frames.encode( 1, payload, final ) end
local function more( payload, final ) return Frames.encode( 0, payload, final ) end

lib.equal( decoded( unhex "810548656c6c6f 010348656c 80026c6f 890548656c6c6f 8a00 827e0100" .. bytes_256 .. unhex "880203e8" ),
    "TEXT[Hello]TEXT[Hello]PING[Hello]PONG[]BINA[" .. bytes_256 .. "]CLOS(1000)[]" )
for _, length in ipairs { 0, 1, 125, 126, 127, 255, 256 } do
    local payload = bytes_65536:sub( 1, length )
    lib.equal( decoded( text( payload ) .. text "next" ), "TEXT[" .. payload .. "]TEXT[next]" )
end
for _, length in ipairs { 65535, 65536, 65537, 1048576 } do
    local payload = string.rep( "x", length )
    local bytes, pieces = Frames.encode( 2, payload ) .. text "next", {}
    for at = 1, #bytes, 997 do pieces[#pieces + 1] = bytes:sub( at, at + 996 ) end
    lib.equal( read( pieces ), "BINA[" .. payload .. "]TEXT[next]" )
end
-- Control frames come between the fragments; empty fragments count as fragments.
local mixed = text( "a", false ) .. Frames.encode( 9, "p" ) .. more( "", false ) .. more( "b", false ) .. Frames.encode( 10, "" )
lib.equal( decoded( mixed .. more( "c" ) .. text "d" ), "PING[p]PONG[]TEXT[abc]TEXT[d]" )
lib.equal( decoded( Frames.encode( 2, "", false ) .. more( "" ) .. text( "" ) ), "BINA[]TEXT[]" )
-- Many fragments of every length are joined in their order.
local fragments, whole = { Frames.encode( 2, "", false ) }, {}
for index = 1, 2000 do
    whole[index] = string.format( "%d", index ):rep( index % 7 )
    fragments[#fragments + 1] = more( whole[index], index == 2000 )
end
lib.equal( read { table.concat( fragments ) }, "BINA[" .. table.concat( whole ) .. "]" )
-- After a close frame nothing is read.
lib.equal( decoded( Frames.encode( 8, "\3\233bye" ) .. text "late" .. "\255\255" ), "CLOS(1001)[bye]" )
lib.equal( decoded( Frames.encode( 8, "" ) ), "CLOS(1005)[]" )
lib.equal( decoded( text( "a", false ) .. Frames.encode( 8, "\3\232" .. string.rep( "x", 123 ) ) ),
    "CLOS(1000)[" .. string.rep( "x", 123 ) .. "]" )

-- Violations ------------------------------------------------------------------------------------

for _, case in ipairs {
    { "9100", "1002 a reserved bit is set" }, { "a100", "1002 a reserved bit is set" }, { "c100", "1002 a reserved bit is set" },
    { "8180 00000000", "1002 a masked frame" }, { "8880 00000000", "1002 a masked frame" },
    { "0900", "1002 a fragmented control frame" }, { "0800", "1002 a fragmented control frame" },
    { "897e0001 00", "1002 a control frame that is too long" }, { "8a7f", "1002 a control frame that is too long" },
    { "8000", "1002 a continuation without a message" }, { "0000", "1002 a continuation without a message" },
    { "0100 8100", "1002 a message inside a message" }, { "0200 0100", "1002 a message inside a message" },
    { "0100 8000 8000", "1002 a continuation without a message", "TEXT[]" },
    { "827e007d", "1002 a length that is not minimal" }, { "827f000000000000ffff", "1002 a length that is not minimal" },
    { "827f8000000000000000", "1002 a length above 2^63" }, { "827fffffffffffffffff", "1002 a length above 2^63" },
    { "880103", "1002 a close frame with one byte of payload" },
    { "827f7fffffffffffffff", "1009 the message is too long" }, { "827f0020000000000001", "1009 the message is too long" },
    { "827f0000000000100001", "1009 the message is too long" },
    { "880403e8c3bc", "1000", "valid" }, { "880303e8c3", "1007 close reason is not UTF-8" },
    { "880403e8eda0", "1007 close reason is not UTF-8" },
} do
    local bytes, expected, before = unhex( case[1] ), case[2], case[3]
    if before == "valid" then
        lib.equal( decoded( bytes ), "CLOS(" .. expected .. ")[\195\188]" )
    else
        lib.equal( decoded( bytes ), ( before or "" ) .. "!" .. expected )
        lib.equal( decoded( text "first" .. bytes .. text "later" ), "TEXT[first]" .. ( before or "" ) .. "!" .. expected )
    end
end
for opcode = 0, 15 do
    if opcode > 2 and opcode < 8 or opcode > 10 then
        lib.equal( decoded( string.char( 128 + opcode, 0 ) ), "!1002 unknown opcode" )
    end
end
for code = 0, 65535 do
    local is_valid = code >= 1000 and code <= 1003 or code >= 1007 and code <= 1014 or code >= 3000 and code <= 4999
    local result = read { Frames.encode( 8, string.char( math.floor( code / 256 ), code % 256 ) ) }
    lib.equal( result, is_valid and "CLOS(" .. code .. ")[]" or "!1002 invalid close code: " .. code )
end
-- The limit counts the lengths of all fragments, as soon as a header announces them. Control frames do not count.
lib.equal( decoded( text( "abcde" ), { max = 5 } ), "TEXT[abcde]" )
lib.equal( decoded( text( "abcdef" ):sub( 1, 2 ), { max = 5 } ), "!1009 the message is too long" )
lib.equal( decoded( text( "abc", false ) .. Frames.encode( 9, "123456" ) .. more( "de" ) .. text "fghij", { max = 5 } ),
    "PING[123456]TEXT[abcde]TEXT[fghij]" )
local over = text( "abc", false ) .. more( "", false ) .. more( "def" ):sub( 1, 2 )
lib.equal( decoded( over, { max = 5 } ), "!1009 the message is too long" )

-- UTF-8 -----------------------------------------------------------------------------------------

-- The number of bytes before the first wrong one, or "complete", or "incomplete".
local function checked( bytes )
    local utf8 = Frames.utf8()
    for at = 1, #bytes do
        if not utf8:feed( bytes:sub( at, at ) ) then
            lib.check( not utf8:feed( "a" ) and not utf8:complete(), "valid after an error" )
            return at - 1
        end
    end
    return utf8:complete() and "complete" or "incomplete"
end

-- The result in one piece, and in two at every split, must be that of single bytes.
local function utf8_result( bytes )
    local result = checked( bytes )
    for at = 0, #bytes do
        local utf8 = Frames.utf8()
        local valid = utf8:feed( bytes:sub( 1, at ) )
        if type( result ) == "number" then lib.equal( valid, at <= result ) end
        valid = valid and utf8:feed( bytes:sub( at + 1 ) )
        lib.equal( valid, type( result ) ~= "number" )
        lib.equal( utf8:complete(), result == "complete" )
    end
    return result
end

-- Autobahn's sections 6.1 to 6.3 and 6.5 to 6.23: valid, incomplete, and the place of the first wrong byte.
for _, case in ipairs {
    { "", "complete" }, { "48656c6c6f2dc2b540c39fc3b6c3a4c3bcc3a0c3a12d5554462d382121", "complete" },
    { "cebae1bdb9cf83cebceda080656469746564", 10 }, { "ceba", "complete" }, { "cebae1bdb9cf83cebcceb5", "complete" },
    { "cebae1bdb9cf83cebcceb5f4908080656469746564", 12 }, { "ce", "incomplete" }, { "cebae1", "incomplete" },
    { "cebae1bd", "incomplete" }, { "cebae1bdb9cf83cebcce", "incomplete" },
    -- First and last characters of each length, and forms of five and six bytes.
    { "00", "complete" }, { "c280", "complete" }, { "e0a080", "complete" }, { "f0908080", "complete" }, { "f888808080", 0 },
    { "fc8480808080", 0 }, { "7f", "complete" }, { "dfbf", "complete" }, { "efbfbf", "complete" }, { "f48fbfbf", "complete" },
    { "f7bfbfbf", 0 }, { "fbbfbfbfbf", 0 }, { "fdbfbfbfbfbf", 0 }, { "ed9fbf", "complete" }, { "ee8080", "complete" },
    { "efbfbd", "complete" }, { "f4908080", 1 },
    -- Continuation bytes without a first one, and first ones without continuation.
    { "80", 0 }, { "bf", 0 }, { "80bf", 0 }, { "c020", 0 }, { "c220", 1 }, { "e120", 1 }, { "e18020", 2 }, { "f120", 1 },
    { "f18020", 2 }, { "f1808020", 3 }, { "c2", "incomplete" }, { "e080", 1 }, { "f08080", 1 }, { "dfc2", 1 },
    { "efbf", "incomplete" }, { "f3bfbf", "incomplete" }, { "efbfc2", 2 }, { "fe", 0 }, { "ff", 0 }, { "fefeffff", 0 },
    -- Overlong forms.
    { "c0af", 0 }, { "e080af", 1 }, { "f08080af", 1 }, { "f8808080af", 0 }, { "c1bf", 0 }, { "e09fbf", 1 }, { "f08fbfbf", 1 },
    { "c080", 0 }, { "e08080", 1 },
    -- Surrogates.
    { "eda080", 1 }, { "edadbf", 1 }, { "edae80", 1 }, { "edafbf", 1 }, { "edb080", 1 }, { "edbfbf", 1 }, { "eda080edb080", 1 },
    -- No characters, but valid.
    { "f09fbfbe", "complete" }, { "f48fbfbe", "complete" }, { "f0afbfbf", "complete" },
    { "f0938080c3a4e282ac41f09fa7a6", "complete" },
} do
    local bytes, expected = unhex( case[1] ), case[2]
    lib.equal( utf8_result( bytes ), expected )
    if expected ~= "incomplete" then
        lib.equal( utf8_result( "ab" .. bytes .. "c" ), expected == "complete" and expected or expected + 2 )
    end
end
-- Every pair of bytes that begins a character, and every third and fourth byte.
for first = 128, 255 do
    for second = 0, 255 do
        local is_second = second >= ( first == 224 and 160 or first == 240 and 144 or 128 )
            and second <= ( first == 237 and 159 or first == 244 and 143 or 191 )
        local expected = ( first < 194 or first > 244 ) and 0 or not is_second and 1 or first < 224 and "complete" or "incomplete"
        lib.equal( checked( string.char( first, second ) ), expected )
    end
    local is_more = first <= 191
    lib.equal( checked( string.char( 239, 191, first ) ), is_more and "complete" or 2 )
    lib.equal( checked( string.char( 243, 191, 191, first ) ), is_more and "complete" or 3 )
    lib.equal( utf8_result( string.char( 243, 191, first, 128 ) ), is_more and "complete" or 2 )
end

-- Behind ASCII of any length, NUL included, since runs of it are skipped; and after characters of each length.
for length = 0, 20 do
    for _, ascii in ipairs { ( "a" ):rep( length ), ( "\0" ):rep( length ), ( "\127\0" ):rep( length ) } do
        for _, before in ipairs { "", "\195\164", "\226\130\172", "\240\159\152\128" } do
            local valid = before .. ascii
            lib.equal( Frames.is_utf8( valid ), true )
            lib.equal( Frames.is_utf8( valid .. "\195\164" .. ascii ), true )
            for _, wrong in ipairs { "\128", "\192\128", "\237\160\128", "\244\144\128\128", "\245", "\195", "\226\130" } do
                lib.equal( Frames.is_utf8( valid .. wrong ), false )
                lib.equal( Frames.is_utf8( valid .. wrong .. "c" .. ascii ), false )
            end
        end
    end
end

-- Texts: a fragment may end within a character, the message may not. A wrong fragment fails before the message is complete.
local euro = "\226\130\172"
local within = text( euro:sub( 1, 1 ), false ) .. more( euro:sub( 2, 2 ), false ) .. more( euro:sub( 3 ) .. "b" )
lib.equal( decoded( text( "a" .. euro ) .. within ), "TEXT[a" .. euro .. "]TEXT[" .. euro .. "b]" )
lib.equal( decoded( text( euro:sub( 1, 2 ) ) ), "!1007 a text is not UTF-8" )
lib.equal( decoded( text( euro:sub( 1, 2 ), false ) .. more( "" ) ), "!1007 a text is not UTF-8" )
lib.equal( decoded( text( "\206\186\225\189\185\207\131\206\188\206\181\244\144", false ) ), "!1007 a text is not UTF-8" )
lib.equal( decoded( text( euro:sub( 1, 2 ), false ) .. more( "\255", false ) ), "!1007 a text is not UTF-8" )
lib.equal( decoded( Frames.encode( 2, "\255\254" ) ), "BINA[\255\254]" )

-- Leniency -------------------------------------------------------------------------------------

-- Any bytes are text, also in fragments, and the reason of a close frame. A masked frame fails all the same.
local lenient = { leniency = Frames.leniency { "utf8" } }
local latin = "Gr\252\223e"
lib.equal( decoded( text( latin ) .. text( euro:sub( 1, 2 ) ) .. Frames.encode( 8, "\3\232" .. latin ), lenient ),
    "TEXT[" .. latin .. "]TEXT[" .. euro:sub( 1, 2 ) .. "]CLOS(1000)[" .. latin .. "]" )
lib.equal( decoded( text( latin, false ) .. more( "", false ) .. more( "\255" ) .. text "a", lenient ),
    "TEXT[" .. latin .. "\255]TEXT[a]" )
lib.equal( decoded( text( latin ) .. unhex "8180 00000000", lenient ), "TEXT[" .. latin .. "]!1002 a masked frame" )
lib.equal( decoded( Frames.encode( 8, "\3" ), lenient ), "!1002 a close frame with one byte of payload" )
-- Frames may be masked: of all lengths, control frames, fragments, beside others that are not. A text must be UTF-8 all the same.
lenient = { leniency = Frames.leniency { "mask" } }
local function masked( opcode, payload, final ) return Frames.encode( opcode, payload, final, "\1\2\3\4" ) end
lib.equal( decoded( masked( 1, "" ) .. masked( 1, "hi" ) .. masked( 9, "p" ) .. text "plain" .. masked( 8, "\3\232bye" ), lenient ),
    "TEXT[]TEXT[hi]PING[p]TEXT[plain]CLOS(1000)[bye]" )
lib.equal( decoded( masked( 1, "a", false ) .. masked( 10, "" ) .. more( "b", false ) .. masked( 0, "c" ) .. text "d", lenient ),
    "PONG[]TEXT[abc]TEXT[d]" )
for _, length in ipairs { 125, 126, 255 } do
    local payload = bytes_65536:sub( 1, length )
    lib.equal( decoded( masked( 2, payload ) .. text "next", lenient ), "BINA[" .. payload .. "]TEXT[next]" )
end
local high = bytes_65536 .. "x"
lib.equal( read( { masked( 2, high ) .. text "next" }, lenient ), "BINA[" .. high .. "]TEXT[next]" )
lib.equal( decoded( masked( 1, latin ), lenient ), "!1007 a text is not UTF-8" )
lib.equal( decoded( masked( 8, "\3\232" .. latin ), lenient ), "!1007 close reason is not UTF-8" )
lib.equal( decoded( unhex "b180 00000000", lenient ), "!1002 a reserved bit is set" )
lib.equal( decoded( masked( 2, "abcdef" ):sub( 1, 2 ), { max = 5, leniency = lenient.leniency } ), "!1009 the message is too long" )
-- Both.
lenient = { leniency = Frames.leniency { "MASK", "Utf8" } }
lib.equal( decoded( masked( 1, latin, false ) .. masked( 0, "\255" ), lenient ), "TEXT[" .. latin .. "\255]" )
for _, wrong in ipairs { {}, { "utf-8" }, { "utf8", "" }, { "utf8,mask" } } do lib.equal( Frames.leniency( wrong ), nil ) end

lib.no_new_globals()
print "ok"
