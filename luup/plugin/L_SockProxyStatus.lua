--- What the SockProxy device shows of the daemon: figures, and the table of connections as JSON and as a page.
-- Its source is the text of STAT JSON. It does no input or output.
-- MIT licence; part of sockproxyd.

local Status = {}

-- Rows of the page. Luup waits while it is made.
local MAX_ROWS = 100
-- Bytes of STAT JSON that become a page, for the same reason. A connection takes about 400.
local MAX_PAGE_STATUS = 64 * 1024
-- Nested values. STAT JSON has five levels.
local MAX_DEPTH = 16

--- Returns the figures of the status: `connections`, `notifications` and `failures`, as numbers, and `latency` in
-- milliseconds, nil before the first notification; nil if the text has none. It reads the text without decoding it:
-- decoding takes a Vera longer.
-- Inside a string of JSON, quotes have a backslash before them, so that none of the patterns matches there.
function Status.figures(text)
    local counters = text and text:match('"notifications":(%b{})')
    if not counters then return nil end
    local _, all = text:gsub('"state":"', "")
    local _, setup = text:gsub('"state":"setup"', "")
    local latency = tonumber(counters:match('"latency":([%d.eE+-]+)'))
    return {
        connections = all - setup,
        notifications = tonumber(counters:match('"delivered":(%d+)')),
        failures = tonumber(counters:match('"failed":(%d+)')),
        latency = latency and math.floor(latency * 10000 + 0.5) / 10,
    }
end

-- Returns a code point in UTF-8.
local function utf8(code)
    if code < 0x80 then return string.char(code) end
    local tail = string.char(0x80 + code % 0x40)
    code = math.floor(code / 0x40)
    if code < 0x20 then return string.char(0xC0 + code) .. tail end
    return string.char(0xE0 + math.floor(code / 0x40), 0x80 + code % 0x40) .. tail
end

local ESCAPES = { b = "\b", f = "\f", n = "\n", r = "\r", t = "\t" }

local function string_at(text, position)
    local parts = {}
    while true do
        local stop = assert(text:find('["\\]', position), "a string without end")
        parts[#parts + 1] = text:sub(position, stop - 1)
        if text:sub(stop, stop) == '"' then return table.concat(parts), stop + 1 end
        local letter = text:sub(stop + 1, stop + 1)
        position = stop + 2
        if letter == "u" then
            parts[#parts + 1] = utf8(assert(tonumber(text:sub(position, position + 3), 16), "a wrong escape"))
            position = position + 4
        else
            parts[#parts + 1] = ESCAPES[letter] or letter
        end
    end
end

local WORDS = { ["true"] = true, ["false"] = false }
local value_at

-- Reads the members of an object or the values of a list behind its bracket.
local function members_at(text, position, depth, close)
    local result, key, value = {}
    position = text:match("^%s*()", position)
    while text:sub(position, position) ~= close do
        if close == "}" then
            key, position = string_at(text, assert(text:match('^%s*"()', position), "no key"))
            position = assert(text:match("^%s*:()", position), "no colon")
        end
        value, position = value_at(text, position, depth)
        result[key or #result + 1] = value
        position = text:match("^%s*,%s*()", position) or assert(text:match("^%s*()[%]}]", position), "no end")
    end
    return result, position + 1
end

-- null is nil.
function value_at(text, position, depth)
    assert(depth < MAX_DEPTH, "too deep")
    position = text:match("^%s*()", position)
    local first = text:sub(position, position)
    if first == "{" then return members_at(text, position + 1, depth + 1, "}") end
    if first == "[" then return members_at(text, position + 1, depth + 1, "]") end
    if first == '"' then return string_at(text, position + 1) end
    local word, stop = text:match("^([%w%.%+%-]+)()", position)
    assert(word, "no value")
    local value = WORDS[word]
    if value == nil and word ~= "null" then value = assert(tonumber(word), "a wrong word") end
    return value, stop
end

--- Decodes JSON. Returns the value, or nil and the reason. A null among the values of a list is left out.
function Status.decode(text)
    local ok, value = pcall(value_at, text, 1, 0)
    if ok then return value end
    return nil, value
end

local ENTITIES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#39;" }

--- Returns a value as HTML text, also for attributes in quotes.
function Status.escaped(value)
    return (tostring(value == nil and "" or value):gsub("[&<>\"']", ENTITIES))
end

-- Returns a text as a JSON string.
local function json_string(text)
    return '"' .. tostring(text):gsub('[%c"\\<>]', function(character)
        return string.format("\\u%04x", character:byte())
    end) .. '"'
end

--- Returns the answer to J_SockProxy1.js. `state` has the device's number `device`, `up` and `restarts` (true or
-- false), `message`, and `status`, the text of STAT JSON, or nil.
function Status.json(state)
    return string.format('{"device":%d,"up":%s,"restarts":%s,"message":%s,"status":%s}', state.device,
        tostring(state.up), tostring(state.restarts), json_string(state.message), state.status or "null")
end

-- Returns seconds as "1 h 05 min", "5 min 07 s" or "7 s".
local function duration(seconds)
    seconds = math.floor(tonumber(seconds) or 0)
    if seconds >= 3600 then return string.format("%d h %02d min", math.floor(seconds / 3600), math.floor(seconds / 60) % 60) end
    if seconds >= 60 then return string.format("%d min %02d s", math.floor(seconds / 60), seconds % 60) end
    return seconds .. " s"
end

-- The columns of the table. J_SockProxy1.js has the same.
local COLUMNS = {
    { "Pid", function(c) return c.id end },
    { "State", function(c) return c.state end },
    { "Target", function(c) return c.target end },
    { "Protocol", function(c) return c.protocol end },
    { "Received", function(c) return string.format("%.0f", tonumber(c.received) or 0) end },
    { "Sent", function(c) return string.format("%.0f", tonumber(c.sent) or 0) end },
    { "Up", function(c) return duration(c.uptime) end },
    { "Idle", function(c) return duration(c.idle) end },
    { "Notifies", function(c) return c.notify end },
    { "Last notification", function(c) return c.notification end },
}

local function row(tag, cell)
    local cells = {}
    for index, column in ipairs(COLUMNS) do
        cells[index] = string.format("<%s>%s</%s>", tag, Status.escaped(cell(column)), tag)
    end
    return "<tr>" .. table.concat(cells) .. "</tr>"
end

-- Returns the lines of the page that the status makes.
local function connections(text)
    if not text then return {} end
    if #text > MAX_PAGE_STATUS then return { "<p>Too many connections for this page: use STAT.</p>" } end
    local status = Status.decode(text)
    if type(status) ~= "table" or type(status.connections) ~= "table" then
        return { "<p>The daemon's status cannot be read.</p>" }
    end
    local lines = { "<table>", row("th", function(column) return column[1] end) }
    for index, connection in ipairs(status.connections) do
        if index > MAX_ROWS then break end
        lines[#lines + 1] = row("td", function(column) return column[2](connection) end)
    end
    lines[#lines + 1] = "</table>"
    local figures = Status.figures(text)
    lines[#lines + 1] = string.format("<p>%d of %d connections shown. Notifications: %s delivered, %s failed.</p>",
        math.min(MAX_ROWS, #status.connections), #status.connections, figures and figures.notifications or "?",
        figures and figures.failures or "?")
    return lines
end

--- Returns a page of HTML that needs no script. `state` is as for Status.json, and `service` is the device's service.
function Status.page(state)
    local lines = {
        '<!DOCTYPE html><html><head><meta charset="utf-8"><title>SockProxy</title>',
        "<style>body{font-family:sans-serif}form{display:inline}",
        "td,th{padding:2px 8px;text-align:left;border-bottom:1px solid #ccc}</style>",
        "</head><body><h1>SockProxy</h1><p>" .. Status.escaped(state.message) .. "</p>",
        '<form action="data_request"><input type="hidden" name="id" value="lr_sockproxy">'
            .. '<input type="hidden" name="page" value="1"><button>Check now</button></form>',
    }
    if state.restarts then
        lines[#lines + 1] = ' <form action="data_request" target="_blank"><input type="hidden" name="id" value="action">'
            .. string.format('<input type="hidden" name="DeviceNum" value="%d">', state.device)
            .. string.format('<input type="hidden" name="serviceId" value="%s">', Status.escaped(state.service))
            .. '<input type="hidden" name="action" value="Restart"><button>Restart the daemon</button></form>'
    end
    for _, text in ipairs(connections(state.status)) do lines[#lines + 1] = text end
    lines[#lines + 1] = "</body></html>"
    return table.concat(lines, "\n")
end

return Status
