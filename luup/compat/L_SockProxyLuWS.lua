--- LuWS's functions, over the proxy: a plugin written for LuWS changes its `require` and works.
--
--     local luws = require "L_SockProxyLuWS"                  -- was: require "L_MyPlugin_LuWS"
--     conn, err = luws.wsopen(url, message_handler, { notify = { device = dev, service = SID, action = "HandleReceive" } })
--
-- Owns: LuWS's names, arguments, results and error words; all else is L_SockProxyClient's. What is other than it was:
--
-- * The proxy speaks WebSocket and TLS: bit, ssl and mime are not needed. It checks Sec-WebSocket-Accept, refuses masked
--   frames, takes frames of any length, answers a ping with its own payload, and refuses texts that are not UTF-8.
-- * Without `notify` wsreceive() is to be called now and then, as before. With it the action calls it, and nobody polls.
--   wsreceive() takes all that is there; `more` is true only where that takes over two seconds.
-- * `connect`, if given, connects to the proxy: it is called with the proxy's address. A function written to make LuWS use
--   SockProxy works as it stands (its CONN leads from the proxy to the proxy, and its NTFY holds), at the cost of a second
--   connection; `notify` does without.
-- * A message over `max_payload_size` ends the connection ("receiver error: message too long"); it is not cut.
-- * `receive_timeout` is watched by the proxy, and is told at once, not at the next wsreceive().
-- * `ssl_protocol`: TLS 1.2 is the lowest ("tlsv1_3": 1.3), "sslv2" and "sslv3" are refused; it is no upper limit.
--   `ssl_options`: "no_tlsv1_2" holds, the others are OpenSSL's own. `ssl_mode` is "client".
-- * A control_handler that returns false keeps a pong from being sent and a close from the message handler; the proxy has
--   answered the close by then.
-- * wshandleincoming() and wsreset() of LuWS's insides, and debug_mode, are not there: no frames come this far.
--
-- New: `timeout` (seconds that wsopen() may take, 5), options of CONN by their names (PINS, KEEP with `seen`, ...), handle().
-- MIT licence; part of sockproxyd.

local socket = require "socket"
local Client = require "L_SockProxyClient"
local unpack = unpack or table.unpack -- luacheck: ignore 143

local TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10

-- LuaSec's names of versions, and the lowest that is spoken here.
local VERSIONS = { all = "1.2", any = "1.2", sslv23 = "1.2", tlsv1 = "1.2", tlsv1_1 = "1.2", tlsv1_2 = "1.2", tlsv1_3 = "1.3" }

-- True if a setting of LuaSec, a word or a list of them, has that word.
local function has(setting, wanted)
    local words = type(setting) == "table" and table.concat(setting, ",") or tostring(setting or "")
    for word in words:gmatch("[%w_]+") do
        if word == wanted then return true end
    end
    return false
end

-- LuWS's options as those of CONN; nil and why not.
local function settings_of(options)
    local settings = {
        timeout = options.timeout, notify = options.notify, seen = options.seen, on_seen = options.on_seen, log = options.log,
        host = options.host, port = options.port, patience = options.patience,
        connect = options.connect, chunk = options.receive_chunk_size,
        MAXM = options.max_payload_size or 65536,
        MASK = options.use_masking ~= false,
        VRFY = has(options.ssl_verify, "peer") and "peer" or "none",
        CTRL = options.control_handler and "hand" or "auto",
        HDRS = options.upgrade_headers,
    }
    if (tonumber(options.receive_timeout) or 0) > 0 then settings.RTIM = options.receive_timeout * 1000 end
    if options.ssl_mode and options.ssl_mode ~= "client" then return nil, "ssl_mode must be client" end
    settings.TLSV = VERSIONS[options.ssl_protocol or "all"]
    if not settings.TLSV then return nil, "ssl_protocol " .. tostring(options.ssl_protocol) .. " is not spoken here" end
    if has(options.ssl_options, "no_tlsv1_2") then settings.TLSV = "1.3" end
    for name, value in pairs(options) do
        if type(name) == "string" and name:match("^%u%u%u%u$") then settings[name] = value end
    end
    return settings
end

-- The payload of a close frame (RFC 6455 section 5.5.1) and its parts.
local function close_payload(code, reason)
    if not code or code == 1005 or code == 1006 then return "" end
    return string.char(math.floor(code / 256), code % 256) .. reason
end
local function close_parts(payload)
    if #payload < 2 then return 1005, "" end
    return payload:byte(1) * 256 + payload:byte(2), payload:sub(3)
end

-- What LuWS calls the end of a connection, for the message handler and as wsreceive's second result.
local function end_words(code, reason)
    if reason == "silent for too long" then return "message timeout", "message timeout" end
    if code == 1009 then return "receiver error: message too long", "message too long" end
    return "receiver error: closed", "closed"
end

-- An LTN12 source: each piece becomes a fragment. Returns true, or false and why not.
local function send_source(conn, verb, source)
    local function next_piece()
        local sound, piece, why = pcall(source)
        if not sound then return nil, tostring(piece) end
        return piece, why
    end
    local piece, why = next_piece()
    while piece do
        local following
        following, why = next_piece()
        -- The last piece would say that the message is whole.
        if not following and why then break end
        local sent, trouble = conn:send(following and "FRAG" or verb, piece)
        if not sent then return false, trouble end
        piece = following
    end
    return why == nil, why
end

local handle_mt = { __tostring = function(handle) return "luws-websock[" .. handle.url .. "]" end }

-- The functions, with options that hold wherever a call says nothing else.
local function library(defaults)
    local LuWS, group = { _VERSION = 20358 }, {}

    --- Opens a connection. `message_handler(conn, opcode, data, ...)`: opcode 1 or 2, or false with an error in `data`.
    -- Returns the connection, or false and why not.
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

        -- True where the plugin leaves it to the default.
        local function controlled(opcode, data)
            return not control or control(handle, opcode, data, unpack(arguments)) ~= false
        end
        function settings.on_message(_, data, kind)
            message_handler(handle, kind == "TEXT" and TEXT or BINARY, data, unpack(arguments))
        end
        function settings.on_ping(conn, data)
            if controlled(PING, data) and control then conn:pong(data) end
        end
        function settings.on_pong(_, data)
            controlled(PONG, data)
        end
        function settings.on_close(_, code, reason)
            local words
            words, handle.ended = end_words(code, reason)
            handle.code, handle.reason = code, reason
            -- 1006 and the proxy's own complaints are no close frames.
            local default = true
            if words == "receiver error: closed" and code ~= 1006 then default = controlled(CLOSE, close_payload(code, reason)) end
            if default then message_handler(handle, false, words, unpack(arguments)) end
        end
        -- Only where timeout is 0: else it is wsopen's result.
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
    -- source. Returns true, or false and why not: the connection is to be closed then.
    function LuWS.wssend(handle, opcode, data)
        if not (handle and handle.conn and handle.conn:is_open()) then return false, "not connected" end
        local conn = handle.conn
        if handle.torn then return false, "a message was left unfinished" end
        if conn.shutting then return false, "closing" end
        local sent, why
        if opcode == CLOSE then
            sent, why = conn:shut(close_parts(tostring(data or "")))
        elseif opcode == PING or opcode == PONG then
            sent, why = conn:send(opcode == PING and "PING" or "PONG", data or "")
        elseif opcode ~= TEXT and opcode ~= BINARY then
            return false, "no opcode of a message: " .. tostring(opcode)
        elseif type(data) == "function" then
            sent, why = send_source(conn, opcode == TEXT and "TEXT" or "BINA", data)
            -- What comes next would end the message that this one left.
            handle.torn = not sent
        else
            sent, why = conn:send(opcode == TEXT and "TEXT" or "BINA", data)
        end
        return sent or false, why
    end

    --- Takes what has come and calls the handlers, without waiting. Returns true if there may be more, else false, and how
    -- many bytes came; nil and why once the connection has ended.
    function LuWS.wsreceive(handle)
        if not (handle and handle.conn) or handle.conn.state == "closed" then return nil, "not connected" end
        local more, bytes = handle.conn:poll()
        if more == nil then return nil, handle.ended or bytes end
        if bytes > 0 then handle.last = socket.gettime() end
        return more, bytes
    end

    --- Ends the connection; may be called at any time.
    function LuWS.wsclose(handle)
        if handle and handle.conn then handle.conn:close(1005) end
    end

    --- When something came last, in seconds as socket.gettime() has them; 0 without a connection.
    function LuWS.wslastping(handle)
        return handle and handle.last or 0
    end

    --- For the action that the proxy invokes, where there are several connections: calls wsreceive() for the one whose Pid it
    -- is, or for all. Returns true if one of them may have more.
    function LuWS.handle(pid)
        return Client.handle(group, pid)
    end

    --- This library with other defaults, such as `notify`, for a plugin of its own.
    function LuWS.with(options)
        return library(options)
    end

    return LuWS
end

return library({})
