--- verawebsockets' functions, over the proxy: a plugin written for that library changes its `require` and says, once, which
-- action the proxy is to invoke.
--
--     local vws = require("L_SockProxyVeraWebSockets").with { notify = { device = dev, service = SID, action = "HandleReceive" } }
--     local wso = vws.create(url, { [1] = "onError", [3] = "onOpen", [4] = "onClose", [8] = "onMessage" }, {}, false)
--     vws.connect(wso)
--     function handleReceive(device, settings) vws.handle(settings.Pid) end       -- the action
--
-- Owns: verawebsockets' names, arguments, event IDs and reasons; all else is L_SockProxyClient's. What is other than it was:
--
-- * No thread of its own calls back: the action that the proxy invokes does, by handle(), or whoever calls handle() now and
--   then. In a script outside of Luup, loop() does.
-- * A message comes whole, however the server cut it, up to 1 MiB (create's option MAXM).
-- * The reason of a failure is the first argument of the callback of event 1; the proxy's own words are the second. These reasons
--   are libwebsockets' own troubles, or of what the proxy does otherwise, and are never given: getaddrinfo (ipv6) failed,
--   unknown address family, set socket opts failed, insert wsi failed, lws_ssl_client_connect1 failed, read failed, HS: Server
--   did not return 200, HS: OOM, HS: disallowed by client filter, HS: disallowed at ESTABLISHED, HS: UPGRADE malformed,
--   HS: PROTOCOL malformed, HS: EXT: failed setting defaults, HS: EXT: failed parsing defaults, HS: EXT: Rejects server
--   options, HS: Rejected by filter cb, HS: SO_SNDBUF failed, HS: Rejected at CLIENT_ESTABLISHED. Where another one means
--   the same, that is given. Timeouts, which had no reason, have the proxy's: CONNECT_TIMEOUT, REQUEST_TIMEOUT.
-- * The files of ssl_settings lie below `directory` of [tls] in the proxy's configuration; of a whole path the last part counts.
-- * The server's certificate is verified; create's option VRFY = "none" or PINS says otherwise.
--
-- New: create's fifth argument, with options of CONN by their names; send(), close(), handle(), with().
-- MIT licence; part of sockproxyd.

local Client = require "L_SockProxyClient"
local Options = require "L_SockProxyOptions"

local CONNECTION_ERROR, ESTABLISHED, CLOSED, RECEIVE = 1, 3, 4, 8

-- What the proxy says, and what libwebsockets called it; the first that matches.
local REASONS = {
    { "^COULD_NOT_CONNECT host or service", "getaddrinfo (ipv4) failed" },
    { "^COULD_NOT_CONNECT", "Peer hung up" },
    { "^SOCKET_ERROR", "Peer hung up" },
    { "^SSL_ERROR", "lws_ssl_client_connect2 failed" },
    { "^INVALID_URL", "HS: URI did not parse" },
    { "^INVALID_SCHEMA", "HS: URI did not parse" },
    { "^PARSE_ERROR_HEADERS no HTTP", "HS: URI missing" },
    { "^PARSE_ERROR_HEADERS", "HS: EXT: list too big" },
    { "^BAD_HTTP_STATUS 3", "HS: Redirect code but no Location" },
    { "^BAD_HTTP_STATUS", "HS: ws upgrade response not 101" },
    { "^REDIRECT_MAX", "HS: Redirect failed" },
    { "^WEBSOCKET_PROTOCOL_ERROR no Sec%-WebSocket%-Accept", "HS: ACCEPT missing" },
    { "^WEBSOCKET_PROTOCOL_ERROR wrong Sec%-WebSocket%-Accept", "HS: Accept hash wrong" },
    { "^WEBSOCKET_PROTOCOL_ERROR no Upgrade", "HS: UPGRADE missing" },
    { "^WEBSOCKET_PROTOCOL_ERROR Upgrade to something else", "HS: Upgrade to something other than websocket" },
    { "^WEBSOCKET_PROTOCOL_ERROR no Connection", "HS: CONNECTION missing" },
    { "^WEBSOCKET_PROTOCOL_ERROR subprotocol", "HS: Cannot match protocol" },
    { "^WEBSOCKET_PROTOCOL_ERROR extension", "HS: EXT: unknown ext" },
    { "^WEBSOCKET_PROTOCOL_ERROR bad extension", "HS: EXT: failed parsing options" },
}

local function reason_of(words)
    for _, pair in ipairs(REASONS) do
        if words:match(pair[1]) then return pair[2] end
    end
    return words
end

-- libwebsockets' levels: a sum of them, or their names in a string.
local LEVELS = { err = 1, warn = 2, notice = 4, info = 8 }

-- `path` as the proxy wants it: below its directory.
local function file_of(path)
    return path and (path:match("^/.*/([^/]+)$") or path:match("^/([^/]+)$") or path)
end

local Socket = {}
Socket.__index = Socket

-- The functions, with options that hold wherever create says nothing else.
local function library(defaults)
    local vws, group, level = {}, {}, LEVELS.err + LEVELS.warn

    local function log(name, words)
        if math.floor(level / LEVELS[name]) % 2 == 0 then return end
        Options.log(defaults, "verawebsockets: " .. words)
    end

    -- Callbacks are global functions, by their names, of whoever called create; looked up when they are needed.
    local function call(wso, event, ...)
        local callback = wso.handlers[event]
        if type(callback) == "string" then
            local name = callback
            callback = wso.environment[name]
            if callback == nil then callback = rawget(_G, name) end
            if type(callback) ~= "function" then return log("err", "no function " .. name) end
        end
        if not callback then return end
        local sound, trouble = pcall(callback, ...)
        if not sound then log("err", "event " .. event .. ": " .. tostring(trouble)) end
    end

    local function failed(wso, words)
        wso.conn = nil
        log("warn", wso.url .. ": " .. words)
        call(wso, CONNECTION_ERROR, reason_of(words), words)
    end

    --- A WebSocket that is not connected yet. `event_handlers`: functions, or their names, by event ID; `ssl_settings`:
    -- client_ssl_cert_filepath and client_ssl_private_key_filepath; `standalone`: true in a script that calls loop().
    function vws.create(url, event_handlers, ssl_settings, standalone, options)
        local sound, environment
        if getfenv then sound, environment = pcall(getfenv, 3) end -- luacheck: ignore 113
        ssl_settings = ssl_settings or {}
        local settings = {
            timeout = 0, MAXM = 1024 * 1024,
            CERT = file_of(ssl_settings.client_ssl_cert_filepath),
            PKEY = file_of(ssl_settings.client_ssl_private_key_filepath),
        }
        for name, value in pairs(defaults) do settings[name] = value end
        for name, value in pairs(options or {}) do settings[name] = value end
        return setmetatable({
            url = tostring(url), handlers = event_handlers or {}, settings = settings, standalone = standalone,
            environment = sound and environment or _G,
        }, Socket)
    end

    --- Connects it, and returns at once; event 3 or 1 follows. Where there is no proxy, event 1 comes before this returns.
    function vws.connect(wso)
        if wso.conn then return end
        local settings = { group = group }
        for name, value in pairs(wso.settings) do settings[name] = value end
        function settings.log(words) log("err", words) end
        function settings.on_open()
            log("info", wso.url .. ": established")
            call(wso, ESTABLISHED)
        end
        function settings.on_error(_, words) failed(wso, words) end
        function settings.on_message(_, data) call(wso, RECEIVE, data) end
        function settings.on_close(_, code, reason)
            wso.conn = nil
            log("info", string.format("%s: closed, %s %s", wso.url, tostring(code), reason or ""))
            call(wso, CLOSED)
        end
        local conn
        local sound, why = Options.websocket_url(wso.url)
        if sound then conn, why = Client.open(wso.url, settings) end
        if not conn then return failed(wso, why) end
        wso.conn = conn
    end

    --- Sends a text, or bytes. Returns true, or nil and why not.
    function vws.send(wso, data, binary)
        if not wso.conn then return nil, "closed" end
        return wso.conn:send(binary and "BINA" or "TEXT", data)
    end

    --- Begins the closing handshake; event 4 follows. Returns true, or nil and why not.
    function vws.close(wso, code, reason)
        if not wso.conn then return nil, "closed" end
        if wso.conn:is_open() then return wso.conn:shut(code, reason) end
        wso.conn:close()
        wso.conn = nil
        return true
    end

    --- For the action that the proxy invokes: calls back for what has come, on the connection of that Pid, or on all.
    -- Returns true if there may be more.
    function vws.handle(pid)
        return Client.handle(group, pid)
    end

    --- In a script outside of Luup: calls back until the last connection has ended. In Luup, which must not be held up, it
    -- returns at once.
    function vws.loop()
        if not rawget(_G, "luup") then Client.loop(group) end
    end

    --- What is logged: 1 errors, 2 warnings (these two unless said otherwise), 4 notices, 8 information, added; or a string with
    -- the names err, warn, notice, info.
    function vws.set_log_level(log_levels)
        level = tonumber(log_levels)
        if level then return end
        level = 0
        for name, value in pairs(LEVELS) do
            if (" " .. tostring(log_levels):lower():gsub("%A", " ") .. " "):find(" " .. name .. " ", 1, true) then level = level + value end
        end
    end

    --- This library with other defaults, such as `notify`, for a plugin of its own.
    function vws.with(options)
        return library(options)
    end

    return vws
end

return library({})
