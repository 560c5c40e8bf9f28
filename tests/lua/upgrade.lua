-- The opening handshake of WebSocket without a server: URLs, the request, and responses in all pieces. The words are the proxy's.
--
-- usage: lua5.1 upgrade.lua, in this directory

local lib = require "lib"
local fakes = require "fakes"
local Transport = require "L_SockProxyTransport"
local Arguments = require "L_SockProxyArguments"
local Upgrade = require "L_SockProxyUpgrade"

-- The nonce of RFC 6455 section 1.3, and what belongs to it.
local KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

lib.equal( Upgrade.key "the sample nonce", KEY )

-- URLs ------------------------------------------------------------------------------------------

local function shown( url )
    local parsed, why = Upgrade.parse( url )
    if not parsed then return why end
    return string.format( "%s %s|%d|%s|%s", tostring( parsed.secure ), parsed.host, parsed.port, parsed.target, parsed.authority )
end

for url, expected in pairs {
    ["ws://h"] = "false h|80|/|h",
    ["wss://h"] = "true h|443|/|h",
    ["WSS://Example.COM:8443/a%2Fb/?q=%41+"] = "true Example.COM|8443|/a%2Fb/?q=%41+|Example.COM:8443",
    ["ws://h:/"] = "false h|80|/|h",
    ["ws://h:80/"] = "false h|80|/|h",
    ["ws://h:443"] = "false h|443|/|h:443",
    ["wss://h:80"] = "true h|80|/|h:80",
    ["ws://h?x"] = "false h|80|/?x|h",
    ["ws://1.2.3.4:1"] = "false 1.2.3.4|1|/|1.2.3.4:1",
    ["ws://[::1]:81/x"] = "false ::1|81|/x|[::1]:81",
    ["ws://[fe80::1%25eth0]/"] = "false fe80::1%eth0|80|/|[fe80::1]",
    ["ws://[fe80::1%eth0]"] = "false fe80::1%eth0|80|/|[fe80::1]",
    ["ws://[::ffff:1.2.3.4]"] = "false ::ffff:1.2.3.4|80|/|[::ffff:1.2.3.4]",
    ["ws://h/@x"] = "false h|80|/@x|h",
    ["ws://h:65535"] = "false h|65535|/|h:65535",
} do
    lib.equal( shown( url ), expected )
end
for _, url in ipairs {
    "", "h", "h/", "ws:", "ws:/h", "ws:h", "ws://", "ws:///x", "ws://:80", "ws://h:x", "ws://h:0", "ws://h:65536", "ws://h:+1",
    "ws://h:99999999999999", "ws://h:80:80", "ws://h h/", "ws://h/ x", "ws://h/\127", "ws://h/\r\nX: y", "ws://h/\0", "ws://h\\x",
    "ws://h/\195\164", "ws://\195\164/", "ws://h%41/", "ws://[::1", "ws://[::1]x", "ws://[1.2.3.4]", "ws://[h]", "ws://[]",
    "ws://[::1%]", "ws://[::1%a/b]", "ws://::1/", " ws://h", "ws://[::1]@h", "1s://h", "://h", "ws://?x", "ws://#", "ws://u@",
    "ws://a b@h", "ws://a@b@h", "h:80",
    "ws://h/a#b", "ws://h#b?c", "ws://h/?a#/b", "ws://u@h", "ws://u:p%40:q@h:81/@x", "wss://@h", "ws://u:p@[::1]:9/",
} do
    lib.equal( shown( url ), "INVALID_URL" )
end
for _, url in ipairs { "http://h", "https://h/", "wsss://h", "ftp://h" } do
    local _, why = Arguments.check_url( url )
    lib.equal( shown( url ), why )
    lib.like( why, "^INVALID_SCHEMA %w+$" )
end

-- A redirect from ws://h:81/a/b?x=1, as the proxy follows it.
local BASE = Upgrade.parse "ws://h:81/a/b?x=1"
for location, expected in pairs {
    ["c"] = "ws h 81 /a/c", ["c/"] = "ws h 81 /a/c/", ["/c"] = "ws h 81 /c", ["?y=2"] = "ws h 81 /a/b?y=2", [""] = "ws h 81 /a/b?x=1",
    ["#f"] = "ws h 81 /a/b?x=1", ["../c"] = "ws h 81 /c", ["../../../c"] = "ws h 81 /c", ["./"] = "ws h 81 /a/", [".."] = "ws h 81 /",
    ["/c/../d/.#f"] = "ws h 81 /d/", ["/..c/./d?../e"] = "ws h 81 /..c/d?../e", ["z?l=http://x/"] = "ws h 81 /a/z?l=http://x/",
    ["//i/j"] = "ws i 80 /j", ["ws://i/j/../k"] = "ws i 80 /j/../k", ["HTTP://i/"] = "ws i 80 /", ["https://i:9"] = "wss i 9 /",
    ["ftp://i/"] = "INVALID_SCHEMA ftp", ["a:b"] = "INVALID_SCHEMA a", ["http:i"] = "INVALID_URL", ["ws://u@i/"] = "INVALID_URL",
    ["//"] = "INVALID_URL", ["a b"] = "INVALID_URL",
} do
    local url, why = Upgrade.join( BASE, location )
    lib.equal( url and table.concat( { url.secure and "wss" or "ws", url.host, url.port, url.target }, " " ) or why, expected )
end
-- Where a plugin's headers may go: other ports of a host are other servers.
for pair, expected in pairs {
    ["ws://h/ ws://H/x"] = true, ["ws://h/ wss://h/"] = true, ["wss://h/ wss://h:443/"] = true, ["ws://h/ ws://h:81/"] = false,
    ["ws://h:81/ wss://h/"] = false, ["wss://h/ ws://h/"] = false, ["ws://h/ wss://h:8443/"] = false, ["ws://h/ ws://i/"] = false,
} do
    local from, to = pair:match "(%S+) (%S+)"
    lib.equal( Upgrade.same_host( Upgrade.parse( from ), Upgrade.parse( to ) ), expected )
end

-- The request -----------------------------------------------------------------------------------

local function request( url, options ) return Upgrade.request( Upgrade.parse( url ), KEY, options ) end

lib.equal( request "ws://example.com/chat?x=1",
    "GET /chat?x=1 HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    .. "Sec-WebSocket-Key: " .. KEY .. "\r\nSec-WebSocket-Version: 13\r\nUser-Agent: sockproxyd\r\n\r\n" )
lib.equal( request( "wss://h:1/", {
    headers = { "X-A: 1", "X-A:2", "X-Empty:" }, subprotocols = { "chat", "superchat" }, agent = "me", origin = "http://here",
    auth = "Aladdin:open sesame",
} ), "GET / HTTP/1.1\r\nHost: h:1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: " .. KEY
    .. "\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chat, superchat\r\nOrigin: http://here\r\nUser-Agent: me\r\n"
    .. "Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\nX-A: 1\r\nX-A: 2\r\nX-Empty: \r\n\r\n" )
-- Headers of the plugin replace those of the module, and Host stays the first.
local own = { "X: y", "host:other:1", "USER-AGENT:x", "origin: y", "authorization:Bearer z" }
lib.equal( request( "ws://h/", { headers = own, auth = "u:p", origin = "o" } ),
    "GET / HTTP/1.1\r\nhost: other:1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: " .. KEY
    .. "\r\nSec-WebSocket-Version: 13\r\nX: y\r\nUSER-AGENT: x\r\norigin: y\r\nauthorization: Bearer z\r\n\r\n" )
-- No value adds a line, and no header breaks the handshake.
local many = {}
for index = 1, 65 do many[index] = "X: y" end
for option, values in pairs {
    HDRS = {
        { "X: a\r\nY: b" }, { "X: a\n" }, { "X: a\r" }, { "X: \0" }, { "X\r\nY: b" }, { "X" }, { ": x" }, { "X Y: z" },
        { "X : z" }, { "upgrade: h2c" }, { "CONNECTION: close" }, { "Sec-WebSocket-Key: x" }, { "sec-websocket-x: y" },
        { "Content-Length: 5" }, { "transfer-encoding: chunked" }, { "Host: a", "hOST: b" }, many,
    },
    SUBP = { { "a", "a" }, { "" }, { "a b" }, { "a,b" }, { "a\r\nX: y" }, many },
    AUTH = { "u", "u:\r\nX: y", "u:\0" }, UAGT = { "a\r\nX: y", "\127" }, ORIG = { "a\r\nX: y", "a\n" },
} do
    local key = ( { HDRS = "headers", SUBP = "subprotocols", AUTH = "auth", UAGT = "agent", ORIG = "origin" } )[option]
    for _, value in ipairs( values ) do
        local built, why = request( "ws://h/", { [key] = value } )
        lib.equal( built, nil )
        lib.equal( why, "Invalid option " .. option )
    end
end

-- At most 64 headers and subprotocols, as the proxy.
local most, names = {}, {}
for index = 1, 64 do most[index], names[index] = "X: y", "n" .. index end
lib.like( request( "ws://h/", { headers = most, subprotocols = names } ), ", n64\r\n" )

-- Responses -------------------------------------------------------------------------------------

local FRAMES = "\129\2hi\r\n\r\nHTTP/1.1 500 x\r\n\r\n"

-- Reads a response that comes in these pieces, with interim ones before it. Returns its result as one string, and the table.
local function read( pieces, subprotocols )
    local transport, reader, heads = Transport.new( fakes.socket( pieces, "closed" ) ), Upgrade.head_reader(), 0
    while true do
        local _, ended = transport:fill()
        while true do
            local head, why = reader:next( transport )
            if why then return why end
            if not head then break end
            local done, response, location = Upgrade.response( head, KEY, { subprotocols = subprotocols } )
            heads = heads + 1
            if done then
                repeat ended = select( 2, transport:fill() ) until ended == "closed"
                lib.equal( transport:bytes( #FRAMES ), FRAMES )
                return "open " .. tostring( response.subprotocol ), response
            elseif response ~= "interim" then
                return response .. ( location and " " .. location or "" )
            end
        end
        if ended == "closed" then return "incomplete" end
    end
end

-- The result of a response, given as lines, which end in CRLF or LF, and come at once, byte by byte and in two pieces.
local function result( lines, subprotocols )
    local expected, response
    for _, ending in ipairs { "\r\n", "\n" } do
        local bytes, single = table.concat( lines, ending ) .. ending .. ending .. FRAMES, {}
        local got, table_of = read( { bytes }, subprotocols )
        if expected then lib.equal( got, expected ) end
        expected, response = got, table_of
        for at = 1, #bytes do single[at] = bytes:sub( at, at ) end
        lib.equal( ( read( single, subprotocols ) ), expected )
        for at = 1, #bytes - 1 do
            lib.equal( ( read( { bytes:sub( 1, at ), bytes:sub( at + 1 ) }, subprotocols ) ), expected )
        end
    end
    return expected, response
end

local STATUS, UPGRADE, CONNECTION = "HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade"
local ACCEPTED = "Sec-WebSocket-Accept: " .. ACCEPT

-- A valid response with more lines at its end.
local function valid( ... ) return { STATUS, UPGRADE, CONNECTION, ACCEPTED, ... } end

local got, response = result( valid( "X-A: 1", "x-a:  2 ", "X-B:" ) )
lib.equal( got, "open nil" )
lib.equal( response.status, 101 )
lib.equal( response.headers["x-a"], "1, 2" )
lib.equal( response.headers["x-b"], "" )
lib.equal( response.headers.upgrade, "websocket" )

-- RFC 6455 section 4.1, the checks of a response.
for _, case in ipairs {
    { { "HTTP/1.1 403 Forbidden" }, "BAD_HTTP_STATUS 403 Forbidden" },
    { { "HTTP/1.0 404 Not Found" }, "BAD_HTTP_STATUS 404 Not Found" },
    { { "HTTP/1.1 200", UPGRADE, CONNECTION, ACCEPTED }, "BAD_HTTP_STATUS 200" }, { { "HTTP/1.1 204 " }, "BAD_HTTP_STATUS 204" },
    { { "HTTP/1.1 999 \tOdd\tone" }, "BAD_HTTP_STATUS 999 Odd one" },
    { { "HTTP/1.1 400 Bad Request" }, "BAD_HTTP_STATUS 400 Bad Request" },
    { { "HTTP/1.1 403 " .. string.rep( "x", 100 ) }, "BAD_HTTP_STATUS 403 " .. string.rep( "x", 64 ) },
    { { "HTTP/1.1 403 Verw\228hrt" }, "BAD_HTTP_STATUS 403" },
    { { "HTTP/1.1 302 Found", "LOCATION: \thttps://x/y " }, "redirect https://x/y" },
    { { "HTTP/1.1 301 X", "Location:", " /a" }, "redirect /a" },
    { { "HTTP/1.1 308 X", "Location: ../a?b" }, "redirect ../a?b" }, { { "HTTP/1.1 302 Found" }, "BAD_HTTP_STATUS 302 Found" },
    { { "HTTP/1.1 302 Found", "Location: /a", "Location: /b" }, "BAD_HTTP_STATUS 302 Found" },
    { { "HTTP/1.1 302 Found", "Location: /a b" }, "INVALID_URL in the redirect" },
    { { "HTTP/1.1 302 Found", "Location : /x" }, "PARSE_ERROR_HEADERS malformed Location" },
    { { "HTTP/1.1 304 Not Modified", "Location: /x" }, "BAD_HTTP_STATUS 304 Not Modified" },
    { { STATUS, "UPGRADE:  \tWebSocket\t ", "connection: keep-alive,\tUPGRADE ,", ACCEPTED }, "open nil" },
    { { STATUS, UPGRADE, "Connection: keep-alive", "connection: Upgrade", ACCEPTED }, "open nil" },
    { { STATUS, CONNECTION, ACCEPTED }, "WEBSOCKET_PROTOCOL_ERROR no Upgrade" },
    { { STATUS, "Upgrade: h2c", CONNECTION, ACCEPTED }, "WEBSOCKET_PROTOCOL_ERROR Upgrade to something else" },
    { { STATUS, "Upgrade:", CONNECTION, ACCEPTED }, "WEBSOCKET_PROTOCOL_ERROR Upgrade to something else" },
    { valid( UPGRADE ), "WEBSOCKET_PROTOCOL_ERROR Upgrade to something else" },
    { { STATUS, UPGRADE, ACCEPTED }, "WEBSOCKET_PROTOCOL_ERROR no Connection: Upgrade" },
    { { STATUS, UPGRADE, "Connection: Upgraded, keep-alive Upgrade", ACCEPTED },
        "WEBSOCKET_PROTOCOL_ERROR no Connection: Upgrade" },
    { { STATUS, UPGRADE, CONNECTION }, "WEBSOCKET_PROTOCOL_ERROR no Sec-WebSocket-Accept" },
    { { STATUS, UPGRADE, CONNECTION, "Sec-WebSocket-Accept: " .. KEY }, "WEBSOCKET_PROTOCOL_ERROR wrong Sec-WebSocket-Accept" },
    { { STATUS, UPGRADE, CONNECTION, "Sec-WebSocket-Accept:" }, "WEBSOCKET_PROTOCOL_ERROR wrong Sec-WebSocket-Accept" },
    { { STATUS, UPGRADE, CONNECTION, ACCEPTED:upper() }, "WEBSOCKET_PROTOCOL_ERROR wrong Sec-WebSocket-Accept" },
    { valid( ACCEPTED ), "WEBSOCKET_PROTOCOL_ERROR wrong Sec-WebSocket-Accept" },
    { { "HTTP/1.0 101 X", UPGRADE, CONNECTION, ACCEPTED }, "WEBSOCKET_PROTOCOL_ERROR 101 in HTTP/1.0" },
    { valid "Sec-WebSocket-Extensions: permessage-deflate; a=b",
        "WEBSOCKET_PROTOCOL_ERROR extension not offered: permessage-deflate" },
    { valid "Sec-WebSocket-Extensions: , ,mux", "WEBSOCKET_PROTOCOL_ERROR extension not offered: mux" },
    { valid "Sec-WebSocket-Extensions: ;", "WEBSOCKET_PROTOCOL_ERROR malformed Sec-WebSocket-Extensions" },
    { valid "Sec-WebSocket-Extensions: ,", "open nil" },
    { valid "Sec-WebSocket-Protocol: superchat\t", "open superchat", { "chat", "superchat" } },
    { valid "Sec-WebSocket-Protocol:", "open nil", { "chat" } },
    { valid "Sec-WebSocket-Protocol: Chat", "WEBSOCKET_PROTOCOL_ERROR subprotocol not offered: Chat", { "chat" } },
    { valid "Sec-WebSocket-Protocol: chat", "WEBSOCKET_PROTOCOL_ERROR subprotocol not offered: chat" },
    { valid( "Sec-WebSocket-Protocol: a", "Sec-WebSocket-Protocol: b" ), "WEBSOCKET_PROTOCOL_ERROR more than one subprotocol",
        { "a", "b" } },
    -- Interim responses, empty lines before a response, and folded lines.
    { { "HTTP/1.1 100 Continue", "", "HTTP/1.1 103 Early Hints", "Link: </x>", "", STATUS, UPGRADE, CONNECTION, ACCEPTED },
        "open nil" },
    { { "", "HTTP/1.1 100 Continue", "", "", STATUS, UPGRADE, CONNECTION, ACCEPTED }, "open nil" },
    { { "HTTP/1.1 100 Continue", "", "HTTP/1.1 503 Busy" }, "BAD_HTTP_STATUS 503 Busy" },
    { valid( "Set-Cookie: a=b;", " \tpath=/", "X: y", " " ), "open nil" },
    { { STATUS, UPGRADE, "Connection: keep-alive,", " Upgrade", ACCEPTED }, "open nil" },
    { { STATUS, "  X: y", "\tz", UPGRADE, CONNECTION, ACCEPTED }, "open nil" },
    { { STATUS, UPGRADE, CONNECTION, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9", " kYGzzhZRbK+xOo=" },
        "WEBSOCKET_PROTOCOL_ERROR wrong Sec-WebSocket-Accept" },
    -- What is not HTTP.
    { { "HTTP/1.7 101 X" }, "PARSE_ERROR_HEADERS invalid HTTP version" },
    { { "HTTP/1.1" }, "PARSE_ERROR_HEADERS invalid HTTP version" },
    { { "HTTP/1.1 1x1 X" }, "PARSE_ERROR_HEADERS invalid response status" },
    { { "HTTP/1.1 1010" }, "PARSE_ERROR_HEADERS invalid response status" },
    { { "HTTP/1.1 101 a\0b" }, "PARSE_ERROR_HEADERS invalid response status" },
    { { "HTTP/1.1 403 a\rb" }, "PARSE_ERROR_HEADERS invalid response status" },
} do
    lib.equal( ( result( case[1], case[3] ) ), case[2] )
end

for status = 300, 309 do
    local is_redirect = status >= 301 and status <= 303 or status >= 307 and status <= 308
    local expected = is_redirect and "redirect /x" or "BAD_HTTP_STATUS " .. status .. " X"
    lib.equal( ( result { "HTTP/1.1 " .. status .. " X", "Location: /x" } ), expected )
end

-- Malformed fields do not matter unless the handshake rests on them.
for _, odd in ipairs { "Server : x", "no colon", "X Y: z", ": z", "X: a\1b", "X: a\0b", "X: a\rb", "X: \127", "\195\164: x" } do
    lib.equal( ( result( valid( odd ) ) ), "open nil" )
    lib.equal( ( result { "HTTP/1.1 403 Forbidden", odd, "Upgrade : x" } ), "BAD_HTTP_STATUS 403 Forbidden" )
    lib.equal( ( result { "HTTP/1.1 302 Found", odd, "Location: /x" } ), "redirect /x" )
end
for bad, name in pairs {
    ["Upgrade : websocket"] = "Upgrade", ["connection\t: Upgrade"] = "Connection",
        ["SEC-WEBSOCKET-ACCEPT : x"] = "Sec-WebSocket-Accept",
    ["Sec-WebSocket-Accept: x\0"] = "Sec-WebSocket-Accept", ["Sec-WebSocket-Protocol: ch\1at"] = "Sec-WebSocket-Protocol",
    ["Sec-WebSocket-Extensions : permessage-deflate"] = "Sec-WebSocket-Extensions", ["Connection"] = "Connection",
} do
    lib.equal( ( result( valid( bad ) ) ), "PARSE_ERROR_HEADERS malformed " .. name )
end

-- Other protocols are refused at the first byte that differs.
for bad, wrong in pairs {
    ["SSH-2.0-x"] = 1, ["http/1.1 101 X"] = 1, ["\r\n\r\nHTTP/1.1 101 X"] = 3, ["\n\n"] = 2, ["\rHTTP/1.1 101 X"] = 2,
        ["\r\nSSH"] = 3,
    ["HTTP/2.0 101 X"] = 6, ["\21\3\1"] = 1, ["HTTP 101"] = 5, ["ICY 200 OK"] = 1, ["\r\r"] = 2,
} do
    lib.equal( read { bad:sub( 1, wrong - 1 ) }, "incomplete" )
    lib.equal( read { bad:sub( 1, wrong ) }, "PARSE_ERROR_HEADERS no HTTP" )
end

-- At most 8192 bytes, those of interim responses included, and 64 fields.
local function of_length( length )
    local lines = valid( "X: " )
    local missing = length - #table.concat( lines, "\r\n" ) - 4
    lines[#lines] = lines[#lines] .. string.rep( "x", missing )
    return table.concat( lines, "\r\n" ) .. "\r\n\r\n"
end
local TOO_LONG = "PARSE_ERROR_HEADERS header block over 8192 bytes"
for length, expected in pairs { [8192] = "open nil", [8193] = TOO_LONG, [8191] = "open nil" } do
    local bytes, single = of_length( length ) .. FRAMES, {}
    for at = 1, #bytes do single[at] = bytes:sub( at, at ) end
    lib.equal( ( read { bytes } ), expected )
    lib.equal( ( read( single ) ), expected )
end
lib.equal( ( read { "HTTP/1.1 101 " .. string.rep( "x", 9000 ) } ), TOO_LONG )
lib.equal( ( read { string.rep( "HTTP/1.1 100 Continue\r\n\r\n", 400 ) } ), TOO_LONG )
local fields = valid()
for index = 5, 65 do fields[index] = "X: y" end
lib.equal( ( read { table.concat( fields, "\r\n" ) .. "\r\n\r\n" .. FRAMES } ), "open nil" )
fields[66] = "X: y"
lib.equal( ( read { table.concat( fields, "\r\n" ) .. "\r\n\r\n" .. FRAMES } ), "PARSE_ERROR_HEADERS more than 64 headers" )

lib.no_new_globals()
print "ok"
