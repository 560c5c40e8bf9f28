--- The lines of CONN and ACPT: their options, encoded so that a value cannot add a word or a line.
-- Owns which options are lists, which are percent-decoded by the proxy, which capabilities of the proxy they need, and
-- which values a plugin may give. Opens no connection.
-- MIT licence; part of sockproxyd.

local Framing = require "L_SockProxyFraming"

local Options = {}

-- The proxy does not percent-decode these: they are older than the decoding, and a path is that of a URL.
local PLAIN = { BLKS = true, NTFY = true, PACE = true, PATH = true, PRTO = true, RTIM = true }
-- Options with several values, separated by commas.
local LISTS = { JOIN = true, LENI = true, PINS = true, SUBP = true }
-- Seconds. The proxy's defaults of CTIM and RQTM, and its longest.
local CONNECT_TIMEOUT, REQUEST_TIMEOUT, MAX_TIMEOUT = 4.5, 15, 600
-- Seconds that the proxy takes for a reply at most, besides the limit that CTIM or RQTM sets.
local REPLY_MARGIN = 10

local function hex(byte)
    return string.format("%%%02x", byte:byte())
end

--- Logs a line by `options.log`, else by Luup's log, else on standard error.
function Options.log(options, words)
    local luup = rawget(_G, "luup")
    local log = options.log or (luup and luup.log)
    if log then log(words) else io.stderr:write(words, "\n") end
end

-- The options of L_SockProxyClient.open, accept and attach that are no options of CONN, and the type of each.
local OWN = {
    host = "string", port = "number", patience = "number", timeout = "number", seen = "number", chunk = "number",
    proxy_interval = "number",
    notify = "table", group = "table", log = "function", connect = "function", timer = "string", directory = "string",
    protocol = "string", lenient = "string", direct = "boolean", reconnect = "boolean",
    on_message = "function", on_open = "function", on_error = "function", on_close = "function", on_ping = "function",
    on_pong = "function", on_head = "function", on_seen = "function", on_lost = "function", on_back = "function",
}
-- The options of CONN that are numbers. The proxy ignores any other value, as the Lua daemon did.
local NUMBERS = {
    RTIM = true, BLKS = true, PACE = true, CTIM = true, KEEP = true, RDIR = true, RQTM = true, PNGI = true, MAXM = true,
    MTTL = true, HEAL = true,
}

--- True if the name of an option is that of CONN, ACPT or LSTN; all others belong to a library.
function Options.is_of_command(name)
    return type(name) == "string" and name:match("^%u%u%u%u$") ~= nil
end

-- The type of a value; a string that is a number counts as one, since variables of Luup are strings.
local function type_of(value, wanted)
    if wanted == "number" and tonumber(value) then return wanted end
    return type(value)
end

--- Returns true if an option table of L_SockProxyClient has only names that exist and values of their types, else nil and the
-- reason. Whether an option of CONN exists is for the proxy.
function Options.check(options)
    for name, value in pairs(options) do
        local wanted = OWN[name] or NUMBERS[name] and "number"
        -- false: as if it were not there.
        if wanted and value ~= false and type_of(value, wanted) ~= wanted then
            return nil, string.format("option %s is no %s: %s", name, wanted, tostring(value))
        end
        if not wanted and not Options.is_of_command(name) then
            return nil, "no such option: " .. tostring(name)
        end
    end
    return true
end

--- Makes numbers of the client's own options that are numbers in strings.
function Options.to_numbers(options)
    for name, wanted in pairs(OWN) do
        if wanted == "number" and options[name] then options[name] = tonumber(options[name]) end
    end
end

--- Percent-encodes what would end an option or an item of a list. Slashes and colons stay readable.
function Options.encoded(text)
    return (tostring(text):gsub("[^%w_.~:/=-]", hex))
end

-- The names of a command's options, sorted, so that equal options give equal lines.
local function sorted(options)
    local names = {}
    for name in pairs(options) do
        if Options.is_of_command(name) then names[#names + 1] = name end
    end
    table.sort(names)
    return names
end

--- Returns the items of a list, which a plugin gives as a table or as words between commas.
function Options.items(value)
    if type(value) == "table" then return value end
    local words = {}
    for word in tostring(value):gmatch("[^,]+") do words[#words + 1] = word:match("^%s*(.-)%s*$") end
    return words
end

--- Returns the words of what a WebSocket's remote may get wrong, which LENI or else `lenient` gives, or nil if neither is set.
function Options.leniency(options)
    local given = options.LENI or options.lenient
    return given and Options.items(given) or nil
end

local function list(value)
    local items = {}
    for _, item in ipairs(Options.items(value)) do items[#items + 1] = Options.encoded(item) end
    return table.concat(items, ",")
end

--- Returns the texts of HELO, which is one or a list.
function Options.texts(value)
    return type(value) == "table" and value or { tostring(value) }
end

--- Returns the lines of HDRS, which is one "Name: value", a list of them, or a table of names and values.
function Options.headers(value)
    if type(value) ~= "table" then return { (tostring(value):gsub(":%s+", ":", 1)) } end
    local lines = {}
    for _, line in ipairs(value) do lines[#lines + 1] = (tostring(line):gsub(":%s+", ":", 1)) end
    local named = {}
    for name, text in pairs(value) do
        if type(name) == "string" then named[#named + 1] = name .. ":" .. tostring(text) end
    end
    table.sort(named)
    for _, line in ipairs(named) do lines[#lines + 1] = line end
    return lines
end

local function on_off(value)
    if value == true then return "on" elseif value == false then return "off" end
    return value
end

-- The fields of `notify`.
local NOTIFY = { device = true, service = true, action = true, pid = true }

--- Returns the value of NTFY for `{ device =, service =, action =, pid = }`, or nil and the reason.
function Options.notify(notify)
    for name in pairs(notify) do
        if not NOTIFY[name] then return nil, "notify: no such field: " .. tostring(name) end
    end
    local device = tonumber(notify.device)
    if not device then return nil, "notify: no device" end
    local words = { string.format("%d", device), notify.service or "", notify.action or "", notify.pid }
    -- A notification without them reaches no plugin.
    if words[2] == "" then return nil, "notify: no service" end
    if words[3] == "" then return nil, "notify: no action" end
    for index = 2, #words do
        if tostring(words[index]):find("[%s%c/]") then return nil, "notify: blanks or slashes in " .. words[index] end
    end
    return table.concat(words, "/")
end

--- Returns a command with its options: the keys of `options` that are four capitals, and `options.notify`. `lists`: the
-- options that are lists, by default those of CONN. Returns nil and the reason for a value that the line cannot have.
function Options.line(words, options, lists)
    lists = lists or LISTS
    local function add(name, value) words[#words + 1] = name .. "=" .. value end
    for _, name in ipairs(sorted(options)) do
        local value = options[name]
        if name == "HDRS" then
            for _, line in ipairs(Options.headers(value)) do add(name, Options.encoded(line)) end
        elseif name == "HELO" then
            for _, text in ipairs(Options.texts(value)) do add(name, Options.encoded(text)) end
        elseif lists[name] then
            if value then add(name, list(value)) end
        elseif PLAIN[name] then
            if tostring(value):find("[%s%c]") then return nil, "Invalid option " .. name end
            add(name, tostring(value))
        else
            add(name, Options.encoded(on_off(value)))
        end
    end
    if options.notify then
        local notify, why = Options.notify(options.notify)
        if not notify then return nil, why end
        add("NTFY", notify)
    end
    return table.concat(words, " ")
end

--- Returns the CONN line for a target, without its line end, or nil and the reason. Takes the keys of `options` that
-- are four capitals, and `options.notify`.
function Options.command(target, options)
    if type(target) ~= "string" or target == "" or target:find("[%s%c]") then
        return nil, "INVALID_URL " .. tostring(target):gsub("[%s%c]", "?")
    end
    return Options.line({ "CONN", target }, options)
end

--- Returns the ACPT line for an arrival; otherwise as Options.command.
function Options.accept_command(id, options)
    if type(id) ~= "string" or not id:match("^%w+$") then return nil, "invalid id: " .. tostring(id) end
    return Options.line({ "ACPT", id }, options)
end

-- The source of random bytes. It stays open: a process that has no descriptors left could not send to a WebSocket. The buffer of
-- the C library makes a read of few bytes cheap.
local source

--- Returns random bytes that another program cannot guess.
function Options.random(count)
    source = source or assert(io.open("/dev/urandom", "rb"))
    return assert(source:read(count))
end

--- Returns a random pid for KEEP. The plugin stores it in a variable of its device.
function Options.secret()
    return (Options.random(16):gsub(".", function(byte) return string.format("%02x", byte:byte()) end))
end

--- Returns the pid of a kept connection, or nil and the reason if the options have no valid one.
function Options.kept_pid(options)
    local pid = options.notify and options.notify.pid
    if type(pid) ~= "string" or #pid < 8 or pid:find("[%s%c/]") then
        return nil, "KEEP needs notify.pid: a secret of 8 characters or more, see proxy.secret()"
    end
    return pid
end

--- Returns true if a plugin may close with that code and reason, else nil and the reason.
function Options.check_close(code, reason)
    if type(code) ~= "number" or not (code == 1005 or Framing.is_close_code(code)) then
        return nil, "invalid close code: " .. tostring(code)
    end
    if #reason > 123 then return nil, "a reason has at most 123 bytes" end
    return true
end

-- Returns a limit in milliseconds in seconds. 0 and less stand for the longest.
local function limit(milliseconds, default)
    local seconds = tonumber(milliseconds) and tonumber(milliseconds) / 1000 or default
    return seconds > 0 and math.min(seconds, MAX_TIMEOUT) or MAX_TIMEOUT
end

--- The seconds that connecting may take, TLS included: CTIM.
function Options.connect_limit(options)
    return limit(options.CTIM, CONNECT_TIMEOUT)
end

--- The seconds that opening a WebSocket may take, from the connect to the response: RQTM.
function Options.request_limit(options)
    return limit(options.RQTM, REQUEST_TIMEOUT)
end

--- How long the proxy's reply to CONN or ACPT may take, in seconds.
function Options.reply_limit(options, websocket)
    return (websocket and Options.request_limit(options) or Options.connect_limit(options)) + REPLY_MARGIN
end

--- True if a target is a URL of a WebSocket.
function Options.is_websocket_url(target)
    return target:match("^[Ww][Ss][Ss]?://") ~= nil
end

--- The framing on the plugin's side: "MESG", "LINE" or "RAW".
function Options.framing(target, options)
    return Options.framing_of(options, Options.is_websocket_url(target))
end

--- The same, for a remote that speaks WebSocket or not.
function Options.framing_of(options, websocket)
    return tostring(options.FRAM or websocket and "MESG" or "RAW"):upper()
end

--- True if a listener's protocol is WebSocket.
function Options.is_websocket(protocol)
    protocol = tostring(protocol):lower()
    return protocol == "ws" or protocol == "wss"
end

--- The words of CAPA that the target and the options need.
function Options.required_capabilities(target, options)
    local needs = {}
    local function need(word, condition) if condition then needs[#needs + 1] = word end end
    local scheme = (target:match("^(%a+)://") or ""):lower()
    need("WS", scheme == "ws" or scheme == "wss")
    need("TLS", scheme == "wss" or tostring(options.PRTO):lower() == "tls")
    need("MESG", Options.framing(target, options) == "MESG")
    need("LINE", Options.framing(target, options) == "LINE")
    need("V6", target:find("^%[") or target:find("://%["))
    need("KEEP", options.KEEP)
    need("HEAL", options.HEAL or options.HELO)
    need("EVNT", on_off(options.EVNT) == "on")
    need("DEFL", on_off(options.DEFL) == "on")
    need("LENI", options.LENI)
    need("MCST", options.BIND or options.JOIN or options.MTTL)
    return needs
end

return Options
