--- LuWS's functions on top of the proxy: a plugin written for LuWS changes its `require` and works.
--
--     local luws = require "L_SockProxyLuWS"                  -- before: require "L_MyPlugin_LuWS"
--     conn, err = luws.wsopen(url, message_handler, { notify = { device = dev, service = SID, action = "HandleReceive" } })
--
-- Owns LuWS's names, arguments, results and error texts. L_SockProxyClient does the rest. Differences from LuWS:
--
-- * The proxy speaks WebSocket and TLS, so bit, ssl and mime are not needed. It checks Sec-WebSocket-Accept, refuses masked
--   frames, accepts frames of any length, answers a ping with the payload of that ping and refuses texts that are not UTF-8.
-- * Without `notify`, the plugin calls wsreceive() at intervals, as before. With it, the action calls wsreceive(), and the
--   plugin does not poll. wsreceive() takes everything that has arrived; `more` is true only if that takes over two seconds.
-- * `connect`, if given, connects to the proxy: it is called with the proxy's address. A function that was written to make
--   LuWS use SockProxy works unchanged (its CONN leads from the proxy to the proxy, and its NTFY applies), at the cost of a
--   second connection. `notify` does not need the second connection.
-- * A message over `max_payload_size` ends the connection ("receiver error: message too long"). LuWS cut the message.
-- * The proxy enforces `receive_timeout` and reports it at once, not at the next wsreceive().
-- * `ssl_protocol` is a lower limit and no upper limit: at least TLS 1.2 ("tlsv1_3": 1.3). "sslv2" and "sslv3" are refused.
--   Of `ssl_options`, "no_tlsv1_2" applies; the others belong to OpenSSL. `ssl_mode` is "client".
-- * A control_handler that returns false suppresses a pong, and suppresses the message handler's call for a close; the proxy
--   has then answered the close already.
-- * LuWS's internal functions wshandleincoming() and wsreset(), and debug_mode, do not exist: the plugin sees no frames.
--
-- New: `timeout` (seconds that wsopen() may take, 5), options of CONN by name (PINS, KEEP with `seen`, ...), handle().
-- MIT licence; part of sockproxyd.

local socket = require "socket"
local Client = require "L_SockProxyClient"
local unpack = unpack or table.unpack -- luacheck: ignore 143

local TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

-- LuaSec's names of TLS versions, and the lowest version that the proxy then accepts.
local VERSIONS = { all = "1.2", any = "1.2", sslv23 = "1.2", tlsv1 = "1.2", tlsv1_1 = "1.2", tlsv1_2 = "1.2", tlsv1_3 = "1.3" }

-- True if a LuaSec setting, a string or a list of strings, contains that word.
local function has(setting, wanted)
    local words = type(setting) == "table" and table.concat(setting, ",") or tostring(setting or "")
    for word in words:gmatch("[%w_]+") do
        if word == wanted then return true end
    end
    return false
end

-- Converts LuWS's options to those of CONN. Returns them, or nil and the reason.
local function settings_of(options)
    local settings = {
        timeout = options.timeout, notify = options.notify, seen = options.seen, on_seen = options.on_seen, log = options.log,
        host = options.host, port = options.port, patience = options.patience, direct = options.direct, timer = options.timer,
        connect = options.connect, chunk = options.receive_chunk_size,
        MAXM = options.max_payload_size or 65536,
        MASK = options.use_masking ~= false,
        VRFY = has(options.ssl_verify, "peer") and "peer" or "none",
        -- The proxy shows the server's pings even to a plugin without control_handler: they count for wslastping.
        CTRL = options.control_handler and "hand" or "show",
        HDRS = options.upgrade_headers,
    }
    if (tonumber(options.receive_timeout) or 0) > 0 then settings.RTIM = options.receive_timeout * 1000 end
    if options.ssl_mode and options.ssl_mode ~= "client" then return nil, "ssl_mode must be client" end
    settings.TLSV = VERSIONS[options.ssl_protocol or "all"]
    if not settings.TLSV then return nil, "ssl_protocol " .. tostring(options.ssl_protocol) .. " is not supported" end
    if has(options.ssl_options, "no_tlsv1_2") then settings.TLSV = "1.3" end
    for name, value in pairs(options) do
        if type(name) == "string" and name:match("^%u%u%u%u$") then settings[name] = value end
    end
    return settings
end

-- The payload of a close frame (RFC 6455 section 5.5.1), and its code and reason.
local function close_payload(code, reason)
    if not code or code == 1005 or code == 1006 then return "" end
    return string.char(math.floor(code / 256), code % 256) .. reason
end
local function close_parts(payload)
    if #payload < 2 then return 1005, "" end
    return payload:byte(1) * 256 + payload:byte(2), payload:sub(3)
end

-- LuWS's texts for the end of a connection: for the message handler, and for wsreceive's second result.
local function end_words(code, reason)
    if reason == "silent for too long" then return "message timeout", "message timeout" end
    if code == 1009 then return "receiver error: message too long", "message too long" end
    return "receiver error: closed", "closed"
end

-- Sends an LTN12 source, each piece as a fragment. Returns true, or false and the reason.
local function send_source(conn, verb, source)
    local function next_piece()
        local ok, piece, why = pcall(source)
        if not ok then return nil, tostring(piece) end
        return piece, why
    end
    local piece, why = next_piece()
    while piece do
        local following
        following, why = next_piece()
        -- Sending the last piece as TEXT or BINA would mark the broken message as complete.
        if not following and why then break end
        local sent, err = conn:send(following and "FRAG" or verb, piece)
        if not sent then return false, err end
        piece = following
    end
    return why == nil, why
end

local handle_mt = { __tostring = function(handle) return "luws-websock[" .. handle.url .. "]" end }

-- Returns the functions. `defaults`: options for calls that do not set them.
local function library(defaults)
    local LuWS, group = { _VERSION = 20358 }, {}

    --- Opens a connection. `message_handler(conn, opcode, data, ...)` gets opcode 1 or 2, or false with the error in `data`.
    -- Returns the connection, or false and the reason.
    function LuWS.wsopen(url, message_handler, options)
        local given = {}
        for name, value in pairs(defaults) do given[name] = value end
        for name, value in pairs(options or {}) do given[name] = value end
        if type(url) ~= "string" or not url:match("^wss?://[^:/]") then
            return false, "Invalid protocol/address for WebSocket open in " .. tostring(url)
        end
        local settings, why = settings_of(given)
        if not settings then return false, why end
        local handle = setmetatable({ url = url, last = socket.gettime() }, handle_mt)
        local arguments, control = given.handler_args or {}, given.control_handler

        -- Calls the control handler. Returns true unless the handler returned false.
        local function call_control_handler(opcode, data)
            return not control or control(handle, opcode, data, unpack(arguments)) ~= false
        end
        function settings.on_message(_, data, kind)
            message_handler(handle, kind == "TEXT" and TEXT or BINARY, data, unpack(arguments))
        end
        function settings.on_ping(conn, data)
            if call_control_handler(PING, data) and control then conn:pong(data) end
        end
        function settings.on_pong(_, data)
            call_control_handler(PONG, data)
        end
        function settings.on_close(_, code, reason)
            local words
            words, handle.ended = end_words(code, reason)
            handle.code, handle.reason = code, reason
            -- Neither 1006 nor an error that the proxy found comes from a close frame.
            local report = true
            if words == "receiver error: closed" and code ~= 1006 then
                report = call_control_handler(CLOSE, close_payload(code, reason))
            end
            if report then message_handler(handle, false, words, unpack(arguments)) end
        end
        -- Only with timeout = 0: otherwise wsopen() returns the error.
        function settings.on_error(_, words)
            handle.ended = words
            message_handler(handle, false, words, unpack(arguments))
        end
        settings.group = group
        handle.conn, why = Client.open(url, settings)
        if not handle.conn then return false, why end
        return handle
    end

    --- Sends a message: opcode 1 is text, 2 binary; 8, 9 and 10 are close, ping and pong. `data`: a string or an LTN12
    -- source. Returns true, or false and the reason; the plugin then closes the connection.
    function LuWS.wssend(handle, opcode, data)
        if not (handle and handle.conn and handle.conn:is_open()) then return false, "not connected" end
        local conn = handle.conn
        if handle.unfinished then return false, "a message was left unfinished" end
        if conn.closing then return false, "closing" end
        local sent, why
        if opcode == CLOSE then
            sent, why = conn:shut(close_parts(tostring(data or "")))
        elseif opcode == PING or opcode == PONG then
            sent, why = conn:send(opcode == PING and "PING" or "PONG", data or "")
        elseif opcode ~= TEXT and opcode ~= BINARY then
            return false, "invalid opcode: " .. tostring(opcode)
        elseif type(data) == "function" then
            sent, why = send_source(conn, opcode == TEXT and "TEXT" or "BINA", data)
            -- The next message would continue the unfinished one.
            handle.unfinished = not sent
        else
            sent, why = conn:send(opcode == TEXT and "TEXT" or "BINA", data)
        end
        return sent or false, why
    end

    --- Reads what has arrived and calls the handlers, without waiting. Returns true if there may be more, else false, and
    -- the number of bytes read. Returns nil and the reason once the connection has ended.
    function LuWS.wsreceive(handle)
        if not (handle and handle.conn) or handle.conn.state == "closed" then return nil, "not connected" end
        local more, bytes = handle.conn:poll()
        if more == nil then return nil, handle.ended or bytes end
        if bytes > 0 then handle.last = socket.gettime() end
        return more, bytes
    end

    --- Closes the connection; may be called at any time.
    function LuWS.wsclose(handle)
        if handle and handle.conn then handle.conn:close(1005) end
    end

    --- The time of the last received bytes, pings of the server included, in seconds as socket.gettime() counts them; 0 without a
    -- connection.
    function LuWS.wslastping(handle)
        return handle and handle.last or 0
    end

    --- For the action that the proxy calls, if there are several connections: calls wsreceive() for the connection with that
    -- Pid, or for all. Returns true if one of them may have more to read.
    function LuWS.handle(pid)
        return Client.handle(group, pid)
    end

    --- Returns this library with other defaults, such as `notify`, for one plugin.
    function LuWS.with(options)
        return library(options)
    end

    return LuWS
end

return library({})
