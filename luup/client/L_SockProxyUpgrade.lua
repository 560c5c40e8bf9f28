--- The opening handshake of WebSocket (RFC 6455 section 4), from the client's side and without extensions.
-- Owns URLs, the request, and the checks of the response. Its errors are those of the proxy. Has no socket, no clock and no
-- source of random bytes.
--
-- Call order: parse, key, request; then a head reader, and response for each head that it returns. After a redirect: join, and all
-- again.
-- MIT licence; part of sockproxyd.

local Digest = require "L_SockProxyDigest"

local Upgrade = {}

-- RFC 6455 section 1.3: what is appended to the key.
local GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
-- Bytes of the response's headers at most, interim responses included; and fields at most. The proxy's limits.
local MAX_HEAD, MAX_FIELDS = 8192, 64
-- The start of every response.
local START = "HTTP/1."
-- The fields on which the handshake rests, by their names without case. In other fields, malformed text does not matter.
local UPGRADE_FIELDS, LOCATION = {}, { location = "Location" }
for name in ("Upgrade Connection Sec-WebSocket-Accept Sec-WebSocket-Protocol Sec-WebSocket-Extensions"):gmatch("%S+") do
    UPGRADE_FIELDS[name:lower()] = name
end
-- Headers that belong to the handshake, or would make its end ambiguous. So do all that begin with Sec-WebSocket-.
local RESERVED = { upgrade = true, connection = true, ["content-length"] = true, ["transfer-encoding"] = true }

local TOKEN = "^[%w!#$%%&'*+.^_`|~-]+$"
-- RFC 9110 section 5.5: what a value must not have, all control characters but the tab.
local CONTROL = "[%z\1-\8\10-\31\127]"

-- Bytes. Longer than any name of DNS (RFC 1035 section 2.3.4) with a port, or any address with a zone.
local MAX_AUTHORITY = 320

-- Takes time that is linear in the length, also for thousands of blanks within the text.
local function trimmed(text)
    local first, last = text:find("[^ \t]"), text:find("[^ \t][ \t]*$")
    return first and text:sub(first, last) or ""
end

-- Makes a server's text fit for one line: at most 64 characters.
local function printable(text)
    return (trimmed(text):sub(1, 64):gsub("\t", " "):gsub("[^ -~]", "?"))
end

-- URLs -------------------------------------------------------------------------------------------

-- Returns the host of a URL, and the port with its colon or "". An IPv6 address is returned without brackets; its zone may be
-- written as in RFC 6874 (%25eth0) or plain. The resolver of names refuses what only looks like an address.
local function split_host(text)
    if text:sub(1, 1) ~= "[" then return text:match("^([%w._~-]+)(.*)$") end
    local address, zone, port = text:match("^%[(%x*:[%x:.]+)(%%?[%w._~-]*)%](.*)$")
    if not zone or zone == "%" then return nil end
    return address .. zone:gsub("^%%25(.)", "%%%1"), port
end

--- Parses a ws or wss URL (RFC 6455 section 3). Returns `{ secure =, host =, port =, target =, authority = }`, or nil and the
-- proxy's error. `host` has no brackets; `authority` is the value of Host. Nothing is percent-decoded. A fragment and a name of a
-- user are errors, as for the proxy.
function Upgrade.parse(url)
    url = tostring(url)
    local scheme, text = url:match("^(%a[%w+.-]*)://([^/?#].*)$")
    -- RFC 3986 section 2: other characters would break the request.
    if not scheme or url:find("[^!-~]") then return nil, "INVALID_URL" end
    local secure = scheme:lower() == "wss"
    if not secure and scheme:lower() ~= "ws" then return nil, "INVALID_SCHEMA " .. scheme end
    -- RFC 6455 section 3: fragment identifiers MUST NOT be used.
    if text:find("#", 1, true) then return nil, "INVALID_URL" end
    local authority, target = text:match("^([^/?]*)(.*)$")
    if #authority > MAX_AUTHORITY then return nil, "INVALID_URL" end
    local host, colon = split_host(authority)
    local digits = host and colon:match("^:(%d*)$")
    if not host or (colon ~= "" and not digits) then return nil, "INVALID_URL" end
    local default = secure and 443 or 80
    local port = digits and digits ~= "" and tonumber(digits) or default
    if port < 1 or port > 65535 then return nil, "INVALID_URL" end
    -- RFC 6455 section 4.1: the port is named unless it is the default one. A zone has a meaning on this machine only.
    local shown = host:match("^[^%%]*")
    if shown:find(":", 1, true) then shown = "[" .. shown .. "]" end
    if port ~= default then shown = string.format("%s:%d", shown, port) end
    if target:sub(1, 1) ~= "/" then target = "/" .. target end
    return { secure = secure, host = host, port = port, target = target, authority = shown }
end

-- Removes "." and ".." from a path that begins with "/" (RFC 3986 section 5.2.4).
local function without_dots(path)
    local pieces, segments = {}, {}
    for piece in (path:sub(2) .. "/"):gmatch("([^/]*)/") do pieces[#pieces + 1] = piece end
    for index, piece in ipairs(pieces) do
        if piece == ".." then segments[#segments] = nil end
        if piece ~= "." and piece ~= ".." then
            segments[#segments + 1] = piece
        elseif index == #pieces then
            segments[#segments + 1] = ""
        end
    end
    return "/" .. table.concat(segments, "/")
end

-- The schemes that a redirect may have.
local SCHEMES = { ws = "ws", wss = "wss", http = "ws", https = "wss" }

--- Returns the URL of a redirect from a parsed URL, as Upgrade.parse, or nil and the proxy's error. `location` may be relative
-- (RFC 3986 section 5.2), and have http and https for ws and wss. Its fragment is dropped (RFC 9110 section 10.2.2).
function Upgrade.join(parsed, location)
    location = location:match("^[^#]*")
    if location:find("[^!-~]") then return nil, "INVALID_URL" end
    local scheme, rest = location:match("^(%a[%w+.-]*):(.*)$")
    if scheme then
        local known = SCHEMES[scheme:lower()]
        if not known then return nil, "INVALID_SCHEMA " .. scheme end
        return Upgrade.parse(known .. ":" .. rest)
    end
    if location:match("^//") then return Upgrade.parse((parsed.secure and "wss:" or "ws:") .. location) end
    local following = {}
    for name, value in pairs(parsed) do following[name] = value end
    local base = parsed.target:match("^[^?]*")
    local path, query = location:match("^([^?]*)(.*)$")
    if path ~= "" then
        if path:sub(1, 1) ~= "/" then path = base:match("^.*/") .. path end
        following.target = without_dots(path) .. query
    elseif query ~= "" then
        following.target = base .. query
    end
    return following
end

--- True if what is for the host of `parsed`, headers and credentials, may be sent to that of `other`, too: the same name, port and
-- scheme, or from ws to wss on their default ports.
function Upgrade.same_host(parsed, other)
    if parsed.host:lower() ~= other.host:lower() then return false end
    if parsed.secure == other.secure then return parsed.port == other.port end
    return other.secure and parsed.port == 80 and other.port == 443
end

-- The request ------------------------------------------------------------------------------------

--- Returns Sec-WebSocket-Key for 16 bytes. RFC 6455 section 4.1: they MUST be random, and new for each connection.
function Upgrade.key(random)
    return Digest.base64(random)
end

-- Returns the headers of a plugin as a list of { name =, value = } and by name without case; or nil if one is invalid.
local function plugin_headers(lines)
    local headers = {}
    for index, line in ipairs(lines) do
        local name, value = line:match("^([^:]*):(.*)$")
        if index > MAX_FIELDS or not name or not name:match(TOKEN) or value:find(CONTROL) then return nil end
        local lower = name:lower()
        if RESERVED[lower] or lower:find("^sec%-websocket%-") or lower == "host" and headers.host then return nil end
        headers[index] = { name = name, value = trimmed(value) }
        headers[lower] = headers[index]
    end
    return headers
end

-- RFC 6455 section 4.1: the subprotocols MUST be tokens, each of which occurs once.
local function are_subprotocols(list)
    local known = {}
    for _, name in ipairs(list) do
        if not name:match(TOKEN) or known[name] then return false end
        known[name] = true
    end
    return #list <= MAX_FIELDS
end

-- Options that are one text, by the names that the errors have for them.
local TEXTS = { auth = "AUTH", agent = "UAGT", origin = "ORIG" }

--- Returns the request for a parsed URL, or nil and the reason. `options`, of strings: `headers` (a list of "Name: value", which
-- replace those of the same name), `subprotocols` (a list), `agent` (User-Agent), `origin`, `auth` ("user:password").
function Upgrade.request(parsed, key, options)
    options = options or {}
    local headers, subprotocols = plugin_headers(options.headers or {}), options.subprotocols or {}
    if not headers then return nil, "Invalid option HDRS" end
    if not are_subprotocols(subprotocols) then return nil, "Invalid option SUBP" end
    for option, name in pairs(TEXTS) do
        local text = options[option]
        if text and (text:find(CONTROL) or option == "auth" and not text:find(":", 1, true)) then
            return nil, "Invalid option " .. name
        end
    end

    local lines = { "GET " .. parsed.target .. " HTTP/1.1" }
    local function add(name, value) lines[#lines + 1] = name .. ": " .. value end
    local function add_default(name, value)
        if value and not headers[name:lower()] then add(name, value) end
    end
    -- RFC 9110 section 7.2: Host SHOULD be the first field, also if the plugin sets it.
    local host = headers.host
    add(host and host.name or "Host", host and host.value or parsed.authority)
    add("Upgrade", "websocket")
    add("Connection", "Upgrade")
    add("Sec-WebSocket-Key", key)
    add("Sec-WebSocket-Version", "13")
    if #subprotocols > 0 then add("Sec-WebSocket-Protocol", table.concat(subprotocols, ", ")) end
    add_default("Origin", options.origin)
    add_default("User-Agent", options.agent or "sockproxyd")
    add_default("Authorization", options.auth and "Basic " .. Digest.base64(options.auth))
    for _, header in ipairs(headers) do
        if header ~= host then add(header.name, header.value) end
    end
    return table.concat(lines, "\r\n") .. "\r\n\r\n"
end

-- The response -----------------------------------------------------------------------------------

local HeadReader = {}
HeadReader.__index = HeadReader

--- Returns a reader of the response's head and of interim responses before it.
function Upgrade.head_reader()
    -- `size`: bytes taken of this head and those before; `start`: what has been taken of START; `lines`: with their ends.
    return setmetatable({ size = 0, start = "", lines = {} }, HeadReader)
end

local function parse_error(words)
    return nil, "PARSE_ERROR_HEADERS " .. words
end

local TOO_LONG = "header block over " .. MAX_HEAD .. " bytes"

--- Takes the next head from `buffer`, whose methods bytes( n ) and line( longest ) are those of L_SockProxyTransport. Returns the
-- head with its empty line, nil if it is incomplete, or nil and the proxy's error. Bytes behind the head stay in the buffer.
function HeadReader:next(buffer)
    -- Other protocols are refused at the first byte that differs; they may send no line end.
    while self.start ~= START do
        local byte = buffer:bytes(1)
        if not byte then return nil end
        self.size = self.size + 1
        if self.size > MAX_HEAD then return parse_error(TOO_LONG) end
        -- Some devices end the body of an earlier response with an empty line too many. RFC 9112 section 2.2 lets a server ignore
        -- one before a request for such peers.
        if self.start == "" and not self.empty and byte == "\r" then
            self.empty = "cr"
        elseif self.start == "" and self.empty ~= "over" and byte == "\n" then
            self.empty = "over"
        else
            self.start = self.start .. byte
            if self.empty == "cr" or START:sub(1, #self.start) ~= self.start then return parse_error("no HTTP") end
        end
    end
    while true do
        local line, why = buffer:line(MAX_HEAD - self.size)
        if why then return parse_error(TOO_LONG) end
        if not line then return nil end
        self.size = self.size + #line + 1
        local lines = self.lines
        local is_last = #lines > 0 and (line == "" or line == "\r")
        if #lines == 0 then line = self.start .. line end
        lines[#lines + 1] = line .. "\n"
        if is_last then
            self.start, self.lines, self.empty = "", {}, nil
            return table.concat(lines)
        end
    end
end

-- Returns the fields of a head by names in lower case, the number of fields with each name, the names in lower case of those
-- that are malformed, and the number of all. Values of one name are joined by commas.
local function parse_fields(block)
    local fields, counts, malformed, total = {}, {}, {}, 0
    -- RFC 9112 section 5.2: a user agent MUST replace each folded line end by blanks. Section 2.2: it MUST ignore a line that
    -- begins with blanks behind the status line, or reject the message.
    block = block:gsub("\r\n", "\n"):gsub("\n[ \t]+", " "):gsub("^[ \t][^\n]*", "")
    for line in block:gmatch("[^\n]+") do
        local name, value = line:match("^([^:]*):(.*)$")
        -- RFC 9110 sections 5.1 and 5.5: the name is a token, and the value has no control characters.
        if name and name:match(TOKEN) and not value:find(CONTROL) then
            name, value, total = name:lower(), trimmed(value), total + 1
            fields[name] = fields[name] and fields[name] .. ", " .. value or value
            counts[name] = (counts[name] or 0) + 1
        else
            malformed[#malformed + 1] = trimmed(name or line):lower()
        end
    end
    return fields, counts, malformed, total
end

-- Returns the error if one of these fields is malformed.
local function malformed_error(malformed, names)
    for _, name in ipairs(malformed) do
        if names[name] then return "PARSE_ERROR_HEADERS malformed " .. names[name] end
    end
end

-- Returns the words of the fault in a response with status 101, or nil and the subprotocol.
local function check_upgrade(fields, counts, key, offered)
    -- RFC 6455 section 4.1, items 2 to 6 of the checks of a response: on each of these faults a client MUST fail the connection.
    -- Item 2: Upgrade is missing or is not `websocket`. A repeated one is neither.
    if not fields.upgrade then return "no Upgrade" end
    if fields.upgrade:lower() ~= "websocket" then return "Upgrade to something else" end
    -- Item 3: Connection is missing or does not contain `Upgrade`.
    local connection = "," .. (fields.connection or "") .. ","
    if not connection:lower():find(",[ \t]*upgrade[ \t]*,") then return "no Connection: Upgrade" end
    -- Item 4: Sec-WebSocket-Accept is missing or does not match the key. A repeated one does not.
    local accept = fields["sec-websocket-accept"]
    if not accept then return "no Sec-WebSocket-Accept" end
    if accept ~= Digest.base64(Digest.sha1(key .. GUID)) then return "wrong Sec-WebSocket-Accept" end
    -- Item 6: the subprotocol was not offered. Some servers that choose none say so by an empty value.
    local chosen = fields["sec-websocket-protocol"]
    if counts["sec-websocket-protocol"] and counts["sec-websocket-protocol"] > 1 then return "more than one subprotocol" end
    if chosen == "" then chosen = nil end
    local is_offered = not chosen
    for _, name in ipairs(offered or {}) do is_offered = is_offered or name == chosen end
    if not is_offered then return "subprotocol not offered: " .. printable(chosen) end
    -- Item 5: an extension was not offered. None is. Empty members of the list are ignored.
    local extension = (fields["sec-websocket-extensions"] or ""):match("[^, \t][^,; \t]*")
    if extension and extension:match(TOKEN) then return "extension not offered: " .. printable(extension) end
    if extension then return "malformed Sec-WebSocket-Extensions" end
    return nil, chosen
end

--- Checks a response's head for a request with that key. `options.subprotocols`: those of the request. Returns:
--
-- * true and `{ status = 101, headers =, subprotocol = }`. `headers` has the values by names in lower case; those of a repeated
--   field are joined by commas.
-- * nil and "interim": another response follows. Its head comes from the same reader.
-- * nil, "redirect" and the Location, which may be relative.
-- * nil and the proxy's error.
function Upgrade.response(head, key, options)
    local version, rest, block = head:match("^HTTP/1%.([01]) ([^\n]*)\n(.*)$")
    if not version then return parse_error("invalid HTTP version") end
    local digits, reason = rest:match("^(%d%d%d)(.-)\r?$")
    if not digits or reason:find("^[^ ]") or reason:find(CONTROL) then return parse_error("invalid response status") end
    local fields, counts, malformed, total = parse_fields(block)
    if total > MAX_FIELDS then return parse_error("more than " .. MAX_FIELDS .. " headers") end

    local status = tonumber(digits)
    if status == 101 then
        -- RFC 6455 section 4.2.2: the status line of the response is HTTP/1.1.
        if version == "0" then return nil, "WEBSOCKET_PROTOCOL_ERROR 101 in HTTP/1.0" end
        local fault = malformed_error(malformed, UPGRADE_FIELDS)
        if fault then return nil, fault end
        local words, subprotocol = check_upgrade(fields, counts, key, options and options.subprotocols)
        if words then return nil, "WEBSOCKET_PROTOCOL_ERROR " .. words end
        return true, { status = status, headers = fields, subprotocol = subprotocol }
    end
    -- RFC 9110 section 15.2: a client MUST be able to parse interim responses before the final one.
    if status >= 100 and status < 200 then return nil, "interim" end
    if status >= 301 and status <= 303 or status == 307 or status == 308 then
        local fault = malformed_error(malformed, LOCATION)
        if fault then return nil, fault end
        if counts.location == 1 then
            if fields.location:find("[^!-~]") then return nil, "INVALID_URL in the redirect" end
            return nil, "redirect", fields.location
        end
    end
    -- Bytes beyond ASCII have no known character set.
    if reason:find("[\128-\255]") then reason = "" end
    return nil, trimmed("BAD_HTTP_STATUS " .. digits .. " " .. printable(reason))
end

return Upgrade
