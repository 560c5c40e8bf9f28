--- The functions of verawebsockets on top of the proxy: a plugin written for that library changes its `require` and names,
-- once, the action that the proxy calls.
--
--     local vws = require("L_SockProxyVeraWebSockets").with { notify = { device = dev, service = SID, action = "HandleReceive" } }
--     local wso = vws.create(url, { [1] = "onError", [3] = "onOpen", [4] = "onClose", [8] = "onMessage" }, {}, false)
--     vws.connect(wso)
--     function handleReceive(device, settings) vws.handle(settings.Pid) end       -- the action
--
-- Owns verawebsockets' names, arguments, event IDs and reasons. L_SockProxyClient does the rest. Differences from
-- verawebsockets:
--
-- * No thread calls the callbacks. handle() does; the action that the proxy calls runs it, or the plugin runs it at
--   intervals. In a script outside of Luup, loop() does.
-- * A message is delivered whole, however the server fragmented it, up to 1 MiB (option MAXM of create).
-- * The callback of event 1 gets the reason as its first argument and the proxy's error as its second. The following
--   reasons never occur, because they are internal errors of libwebsockets or because the proxy works differently:
--   getaddrinfo (ipv6) failed, unknown address family, set socket opts failed, insert wsi failed, lws_ssl_client_connect1
--   failed, read failed, HS: Server did not return 200, HS: OOM, HS: disallowed by client filter, HS: disallowed at
--   ESTABLISHED, HS: UPGRADE malformed, HS: PROTOCOL malformed, HS: EXT: failed setting defaults, HS: EXT: failed parsing
--   defaults, HS: EXT: Rejects server options, HS: Rejected by filter cb, HS: SO_SNDBUF failed, HS: Rejected at
--   CLIENT_ESTABLISHED. If another reason means the same, that one is given. Timeouts, which had no reason, have the
--   proxy's: CONNECT_TIMEOUT, REQUEST_TIMEOUT.
-- * The files of ssl_settings are below `directory` of [tls] in the proxy's configuration; only the last part of a path
--   is used.
-- * As in libwebsockets, texts of the server need not be UTF-8 (LENI; false: they must be).
-- * The server's certificate is verified; create's option VRFY = "none" or PINS changes that.
--
-- New: create's fifth argument, with options of CONN by name; send(), close(), handle(), with().
-- MIT licence; part of sockproxyd.

local Arguments = require "L_SockProxyArguments"
local Client = require "L_SockProxyClient"
local Options = require "L_SockProxyOptions"

local CONNECTION_ERROR, ESTABLISHED, CLOSED, RECEIVE = 1, 3, 4, 8

-- The proxy's errors as patterns, and libwebsockets' reasons for them. The first match applies.
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

-- libwebsockets' log levels: a sum of them, or their names in a string. ALL is the sum of all that libwebsockets has.
local LEVELS, ALL = { err = 1, warn = 2, notice = 4, info = 8 }, 2047

-- Returns the environment of the plugin that has called create: the first on the stack that is not the global one. A pcall, which
-- has the global one, and a tail call, which has none, may be between. LuaUPnP gives each plugin an environment of its own.
local function callers_environment()
    for level = 3, 10 do
        -- pcall and this function are levels, too.
        local ok, environment = pcall(getfenv or error, level + 1) -- luacheck: ignore 113
        if ok and environment ~= _G then return environment end
    end
    return _G
end

local Socket = {}
Socket.__index = Socket

-- Returns the functions. `defaults`: options for calls of create that do not set them.
local function library(defaults)
    local vws, group, level = {}, {}, 0

    local function log(name, words)
        if math.floor(level / LEVELS[name]) % 2 == 0 then return end
        Options.log(defaults, "verawebsockets: " .. words)
    end

    -- Callbacks are names of global functions in the environment of create's caller. They are looked up at each call.
    local function call(wso, event, ...)
        local callback = wso.handlers[event]
        if type(callback) == "string" then
            local name = callback
            callback = wso.environment[name]
            if callback == nil then callback = rawget(_G, name) end
            -- The plugin's own faults are logged at every level.
            if type(callback) ~= "function" then return Options.log(defaults, "verawebsockets: no function " .. name) end
        end
        if not callback then return end
        local ok, err = pcall(callback, ...)
        if not ok then Options.log(defaults, "verawebsockets: event " .. event .. ": " .. tostring(err)) end
    end

    local function open_failed(wso, words)
        wso.conn = nil
        log("warn", wso.url .. ": " .. words)
        call(wso, CONNECTION_ERROR, reason_of(words), words)
    end

    --- Returns a WebSocket that is not connected yet. `event_handlers`: functions or their names, by event ID;
    -- `ssl_settings`: client_ssl_cert_filepath and client_ssl_private_key_filepath; `standalone`: true in a script that
    -- calls loop().
    function vws.create(url, event_handlers, ssl_settings, standalone, options)
        ssl_settings = ssl_settings or {}
        local settings = {
            timeout = 0, MAXM = 1024 * 1024,
            CERT = Arguments.file_of(ssl_settings.client_ssl_cert_filepath),
            PKEY = Arguments.file_of(ssl_settings.client_ssl_private_key_filepath),
            directory = Arguments.folder_of(ssl_settings.client_ssl_cert_filepath),
        }
        for name, value in pairs(defaults) do settings[name] = value end
        for name, value in pairs(options or {}) do settings[name] = value end
        -- libwebsockets checks texts if its user asks for it (LWS_SERVER_OPTION_VALIDATE_UTF8).
        if settings.LENI == nil then settings.lenient = "utf8" end
        return setmetatable({
            url = tostring(url), handlers = event_handlers or {}, settings = settings, standalone = standalone,
            environment = callers_environment(),
        }, Socket)
    end

    --- Connects and returns at once; event 3 or 1 follows. Without a proxy, event 1 occurs before this function returns.
    function vws.connect(wso)
        if wso.conn then return end
        local settings = { group = group }
        for name, value in pairs(wso.settings) do settings[name] = value end
        function settings.log(words) log("err", words) end
        function settings.on_open()
            log("info", wso.url .. ": established")
            call(wso, ESTABLISHED)
        end
        function settings.on_error(_, words) open_failed(wso, words) end
        function settings.on_message(_, data) call(wso, RECEIVE, data) end
        function settings.on_close(_, code, reason)
            wso.conn = nil
            log("info", string.format("%s: closed, %s %s", wso.url, tostring(code), reason or ""))
            call(wso, CLOSED)
        end
        local conn
        local valid, why = Arguments.check_url(wso.url)
        if valid then conn, why = Client.open(wso.url, settings) end
        if not conn then return open_failed(wso, why) end
        wso.conn = conn
    end

    --- Sends a text, or bytes if `binary` is true. Returns true, or nil and the reason.
    function vws.send(wso, data, binary)
        if not wso.conn then return nil, "closed" end
        return wso.conn:send(binary and "BINA" or "TEXT", data)
    end

    --- Starts the closing handshake; event 4 follows. Returns true, or nil and the reason.
    function vws.close(wso, code, reason)
        if not wso.conn then return nil, "closed" end
        if wso.conn:is_open() then return wso.conn:shut(code, reason) end
        wso.conn:close()
        wso.conn = nil
        return true
    end

    --- For the action that the proxy calls: reads what has arrived on the connection with that Pid, or on all, and calls the
    -- callbacks. Returns true if there may be more.
    function vws.handle(pid)
        return Client.handle(group, pid)
    end

    --- In a script outside of Luup: serves the connections until the last one has closed. In Luup, which must not block, it
    -- returns at once.
    function vws.loop()
        if not rawget(_G, "luup") then Client.loop(group) end
    end

    --- Sets what is logged: the sum of 1 for errors, 2 for warnings, 4 for notices, 8 for information (default: 0), or a
    -- string with the names err, warn, notice, info, or all (2047).
    function vws.set_log_level(log_levels)
        level = tonumber(log_levels)
        if level then return end
        level = 0
        local names = " " .. tostring(log_levels):lower():gsub("%A", " ") .. " "
        if names:find(" all ", 1, true) then
            level = ALL
            return
        end
        for name, value in pairs(LEVELS) do
            if names:find(" " .. name .. " ", 1, true) then level = level + value end
        end
    end

    --- Returns this library with other defaults, such as `notify`, for one plugin.
    function vws.with(options)
        return library(options)
    end

    return vws
end

return library({})
