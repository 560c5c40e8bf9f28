--- What the libraries of other projects, as this folder has them, make of their arguments for L_SockProxyClient.
-- Owns which options of a plugin are passed on as they are, how a path becomes a file of the proxy's directory, and the check of
-- a URL. Opens no connection.
-- MIT licence; part of sockproxyd.

local Options = require "L_SockProxyOptions"

local Arguments = {}

-- The options of L_SockProxyClient that are the same in these libraries.
local PASSED = {
    "notify", "seen", "on_seen", "log", "host", "port", "patience", "connect", "direct", "timer", "directory",
}

-- True if Arguments.pass passes on an option of that name.
local function is_passed(name)
    for _, passed in ipairs(PASSED) do
        if name == passed then return true end
    end
    return Options.is_of_command(name)
end

--- Returns the words of a text as a set.
function Arguments.set(text)
    local set = {}
    for word in text:gmatch("%S+") do set[word] = true end
    return set
end

--- Logs the options that there are not, with `words` before each name: neither in the set `known` nor passed on. The originals
-- ignore them. A plugin that has one goes on, and its author learns of it.
function Arguments.log_unknown(given, known, words)
    for name in pairs(given) do
        if not known[name] and not is_passed(name) then Options.log(given, words .. tostring(name)) end
    end
end

--- Copies a plugin's options that L_SockProxyClient has under the same name, and the options of CONN, to `settings`. `leniency`:
-- what the original library does not check, in the words of LENI. It is for plugins that do not set LENI themselves.
function Arguments.pass(given, settings, leniency)
    for _, name in ipairs(PASSED) do
        if given[name] ~= nil then settings[name] = given[name] end
    end
    for name, value in pairs(given) do
        if Options.is_of_command(name) then settings[name] = value end
    end
    if settings.LENI == nil then settings.lenient = leniency end
end

--- Splits a table of a request's headers by names. Returns the value of HDRS and that of SUBP: HDRS cannot have
-- Sec-WebSocket-Protocol.
function Arguments.split_headers(headers)
    if type(headers) ~= "table" then return headers end
    local others, subprotocols = {}, nil
    for name, value in pairs(headers) do
        if tostring(name):lower() == "sec-websocket-protocol" then subprotocols = value else others[name] = value end
    end
    return others, subprotocols
end

--- Converts a path to the name of a file in the proxy's directory for certificates.
function Arguments.file_of(path)
    return path and (path:match("^/.*/([^/]+)$") or path:match("^/([^/]+)$") or path)
end

--- Returns the folder of a path, where the file is without the proxy; nil if the path is not absolute.
function Arguments.folder_of(path)
    return path and path:match("^(/.*)/[^/]+$")
end

--- Returns true for a ws or wss URL, else nil and the error that the proxy gives for it.
function Arguments.check_url(url)
    local scheme = tostring(url):match("^(%a[%w+.-]*)://[^/?#]")
    if not scheme then return nil, "INVALID_URL" end
    if scheme:lower() == "ws" or scheme:lower() == "wss" then return true end
    return nil, "INVALID_SCHEMA " .. scheme
end

return Arguments
