--- LuWS's functions on top of the proxy: a plugin written for LuWS changes its `require` and works.
--
--     local luws = require "L_SockProxy_LuWS"                  -- before: require "L_MyPlugin_LuWS"
--     conn, err = luws.wsopen(url, message_handler, { notify = { device = dev, service = SID, action = "HandleReceive" } })
--
-- Owns LuWS's names, arguments, results and error texts. L_SockProxyClient does the rest, through the proxy or without it. The
-- file may be renamed. Differences from LuWS, each with its test, are in docs/lua.md; the most important:
--
-- * bit, ssl and mime are not needed where there is a proxy. Sec-WebSocket-Accept is checked, frames have any length, and a pong
--   has the payload of its ping. A message over `max_payload_size` ends the connection; LuWS cut it.
-- * As in LuWS, texts of the server need not be UTF-8, and its frames may be masked (LENI; false: RFC 6455 holds). Any other
--   violation of RFC 6455 ends the connection, and what the plugin sends as text must be UTF-8.
-- * Without `notify`, the plugin calls wsreceive() at intervals, as before, and Luup's timer polls, too. With `notify`, the action
--   calls it. wsreceive() hands over what has arrived, for 0.05 s or one message; `more` is true if there is more.
-- * `connect`, if given, connects to the proxy: it is called with the proxy's address, or without a proxy with the server's. A
--   function that was written to make LuWS use SockProxy works unchanged, at the cost of a second connection.
-- * wsopen() waits for the connection, `timeout` seconds at most (5), as LuWS did. With `async` = true it returns after 0.1 s at
--   the latest; what is sent before the connection is open waits, and the message handler gets the error of one that fails.
-- * A control_handler that returns false suppresses a pong, and suppresses the message handler's call for a close, which has been
--   answered already.
--
-- New: `async`, `timeout`, `sink`, options of CONN by name (PINS, KEEP with `seen`, ...), handle(), with().
-- MIT licence; part of sockproxyd.

local socket = require "socket"
local Arguments = require "L_SockProxyArguments"
local Client = require "L_SockProxyClient"
local Clock = require "L_SockProxyClock"
local Framing = require "L_SockProxyFraming"
local Options = require "L_SockProxyOptions"
local unpack = unpack or table.unpack -- luacheck: ignore 143

local CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

-- Seconds that wsopen() waits for the connection.
local OPEN_TIMEOUT = 5

-- All options but those that are passed on.
local KNOWN = Arguments.set [[
    handler_args receive_timeout receive_chunk_size max_payload_size ssl_protocol ssl_verify ssl_mode ssl_options use_masking
    control_handler upgrade_headers async timeout sink]]

-- What LuWS does not check.
local LENIENCY = "utf8,mask"

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
        timeout = options.timeout or not options.async and OPEN_TIMEOUT or nil,
        chunk = options.receive_chunk_size,
        MAXM = options.max_payload_size or 65536,
        MASK = options.use_masking ~= false,
        VRFY = has(options.ssl_verify, "peer") and "peer" or "none",
        -- The proxy shows the server's pings even to a plugin without control_handler: they count for wslastping.
        CTRL = options.control_handler and "hand" or "show",
    }
    settings.HDRS, settings.SUBP = Arguments.split_headers(options.upgrade_headers)
    if (tonumber(options.receive_timeout) or 0) > 0 then settings.RTIM = options.receive_timeout * 1000 end
    if options.ssl_mode and options.ssl_mode ~= "client" then return nil, "ssl_mode must be client" end
    settings.TLSV = VERSIONS[options.ssl_protocol or "all"]
    if not settings.TLSV then return nil, "ssl_protocol " .. tostring(options.ssl_protocol) .. " is not supported" end
    if has(options.ssl_options, "no_tlsv1_2") then settings.TLSV = "1.3" end
    Arguments.pass(options, settings, LENIENCY)
    return settings
end

-- The code and the reason in the payload of a close frame (RFC 6455 section 5.5.1).
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

-- Returns a value as a word for a log line: a table with its content.
local function dump(value, seen)
    if type(value) == "string" then return string.format("%q", #value > 255 and value:sub(1, 252) .. "..." or value) end
    if type(value) ~= "table" then return tostring(value) end
    seen = seen or {}
    if seen[value] then return "(recursion)" end
    seen[value] = true
    local words = {}
    for name, item in pairs(value) do words[#words + 1] = tostring(name) .. "=" .. dump(item, seen) end
    return "{ " .. table.concat(words, ", ") .. " }"
end

-- Returns the functions. `defaults`: options for calls that do not set them.
local function library(defaults)
    local LuWS, group = { _VERSION = 20358, debug_mode = false }, {}

    local function debug(...)
        Options.log(defaults, "luws: " .. string.format(...))
    end

    --- Returns a value as a word for a log line: a table with its content.
    function LuWS.dump(value)
        return dump(value)
    end

    --- Sets debug_mode, as in the LuWS of EzloBridge.
    function LuWS.wsinit(debug_mode)
        LuWS.debug_mode = debug_mode or false
    end

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
        Arguments.log_unknown(given, KNOWN, "luws: no such option: ")
        if LuWS.debug_mode then debug("wsopen(%s)", url) end
        local handle = setmetatable({ url = url, opened_at = Clock.now(), max = settings.MAXM }, handle_mt)
        local arguments, control = given.handler_args or {}, given.control_handler

        -- Calls the control handler. Returns true unless the handler returned false.
        local function call_control_handler(opcode, data)
            return not control or control(handle, opcode, data, unpack(arguments)) ~= false
        end
        function settings.on_message(_, data, kind)
            local opcode = kind == "TEXT" and TEXT or BINARY
            if LuWS.debug_mode then debug("received opcode %d, %d bytes", opcode, #data) end
            local sink = given.sink and given.sink(handle, opcode, unpack(arguments))
            if sink then
                -- LTN12: a chunk, then nil for the end.
                if sink(data) then sink(nil) end
                return
            end
            message_handler(handle, opcode, data, unpack(arguments))
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
            -- 1006 stands for an end without a close frame, and the error of 1009 has words of its own. A violation that this
            -- side found, with 1002 or 1007, looks like a close frame of the server with that code.
            local report = true
            handle.close_frame = words == "receiver error: closed" and code ~= 1006
            if handle.close_frame then report = call_control_handler(CLOSE, Framing.close_payload(code or 1005, reason)) end
            if report then message_handler(handle, false, words, unpack(arguments)) end
        end
        -- Only with timeout = 0: otherwise wsopen() returns the error.
        function settings.on_error(_, words)
            handle.ended = words
            message_handler(handle, false, words, unpack(arguments))
        end
        settings.group = group
        -- For wshandleincoming().
        handle.deliver = settings
        handle.conn, why = Client.open(url, settings)
        if not handle.conn then return false, why end
        return handle
    end

    --- Sends a message: opcode 1 is text, 2 binary; 8, 9 and 10 are close, ping and pong; 0 is a piece of a message that the next 1
    -- or 2 ends. `data`: a string or an LTN12 source. Returns true, or false and the reason; the plugin then closes the
    -- connection. What a server does not read at once is queued, up to 1 MiB.
    function LuWS.wssend(handle, opcode, data)
        local conn = handle and handle.conn
        if not conn or conn.state == "closed" then return false, "not connected" end
        if LuWS.debug_mode then
            debug("wssend(%s, %s)", tostring(opcode), type(data) == "string" and #data .. " bytes" or type(data))
        end
        if handle.unfinished then return false, "a message was left unfinished" end
        if conn.closing then return false, "closing" end
        local sent, why
        if opcode == CLOSE then
            sent, why = conn:shut(close_parts(tostring(data or "")))
        elseif opcode == PING or opcode == PONG then
            sent, why = conn:send(opcode == PING and "PING" or "PONG", data or "")
        elseif opcode == CONTINUATION and type(data) ~= "function" then
            sent, why = conn:send("FRAG", data)
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
        local conn = handle and handle.conn
        if not conn or handle.left then return nil, "not connected" end
        if conn.state == "closed" then return nil, handle.ended or "closed" end
        local more, bytes = conn:poll()
        if LuWS.debug_mode then debug("wsreceive: %s, %d bytes", tostring(more), conn.read) end
        -- A close frame is something that has been received; the end of the connection is for the next call, as in LuWS.
        if more == nil and handle.close_frame then return false, conn.read end
        if more == nil then return nil, handle.ended or bytes end
        return more, bytes
    end

    --- Parses bytes that the plugin has received itself as frames of this connection, and calls the handlers. For plugins that feed
    -- LuWS by hand: what arrives by wsreceive() does not pass here.
    function LuWS.wshandleincoming(data, handle)
        local incoming = handle.incoming
        if not incoming then
            local Frames = require "L_SockProxyFrames"
            local leniency = Frames.leniency(Options.leniency(handle.deliver) or {})
            incoming = { buffer = Frames.buffer(), decoder = Frames.decoder { max = handle.max, leniency = leniency } }
            handle.incoming = incoming
        end
        incoming.buffer:append(data)
        local to = handle.deliver
        while true do
            local verb, body, code = incoming.decoder:next(incoming.buffer)
            if verb == "TEXT" or verb == "BINA" then
                to.on_message(handle.conn, body, verb)
            elseif verb == "PING" then
                -- With a control handler, that one decides.
                if to.CTRL ~= "hand" then handle.conn:pong(body) end
                to.on_ping(handle.conn, body)
            elseif verb == "PONG" then
                to.on_pong(handle.conn, body)
            else
                -- The end of the bytes, a close frame, or what is no frame: the decoder then says its code and the words.
                if verb == "CLOS" then
                    to.on_close(handle.conn, code, body)
                elseif body then
                    to.on_close(handle.conn, body, code)
                end
                return
            end
        end
    end

    --- Forgets what wshandleincoming() has of an unfinished message. wsreceive() has whole messages, and nothing to forget.
    function LuWS.wsreset(handle)
        if handle then handle.incoming = nil end
    end

    --- Closes the connection; may be called at any time.
    function LuWS.wsclose(handle)
        if not (handle and handle.conn) then return end
        if LuWS.debug_mode then debug("wsclose") end
        handle.left = true
        handle.conn:close(1005)
    end

    --- The time of the last received bytes, pings of the server included, in seconds as socket.gettime() counts them; 0 without a
    -- connection.
    function LuWS.wslastping(handle)
        if not handle then return 0 end
        -- The handler of a connection that is not made has none.
        local conn = handle.conn or {}
        return socket.gettime() - Clock.since(conn.read_at or handle.opened_at)
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
