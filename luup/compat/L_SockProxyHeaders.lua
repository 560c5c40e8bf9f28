--- HTTP headers with the interface of turbo's httputil.HTTPHeaders, which callbacks read and change; and conversions of
-- tables to strings as turbo does them: queries and JSON. Owns no connection.
-- Header names match in any case.
-- MIT licence; part of sockproxyd.

local Headers = {}
Headers.__index = Headers

--- Returns an empty set of headers, or the headers of a request's or response's head: its first line, then `Name: value`.
function Headers.new(head)
    local self = setmetatable({ lines = {} }, Headers)
    if head then
        local rest
        self.first, rest = head:match("^([^\r\n]*)\r?\n(.*)$")
        for line in (rest or ""):gmatch("[^\r\n]+") do
            local name, value = line:match("^([^:]+):[ \t]*(.*)$")
            if name then self:add(name, value) end
        end
    end
    return self
end

--- Returns the value of a header, or a list of its values if there are several, and their number; nil and 0 if there is
-- none.
function Headers:get(name)
    local values = {}
    for _, line in ipairs(self.lines) do
        if line.name:lower() == name:lower() then values[#values + 1] = line.value end
    end
    if #values == 0 then return nil, 0 end
    return #values == 1 and values[1] or values, #values
end

--- Adds a header and keeps those of the same name.
function Headers:add(name, value)
    self.lines[#self.lines + 1] = { name = tostring(name), value = tostring(value) }
end

--- Removes the headers of a name.
function Headers:remove(name)
    for index = #self.lines, 1, -1 do
        if self.lines[index].name:lower() == name:lower() then table.remove(self.lines, index) end
    end
end

--- Replaces the headers of a name by one.
function Headers:set(name, value)
    self:remove(name)
    self:add(name, value)
end

--- The status code of a response, a number.
function Headers:get_status_code() return tonumber((self.first or ""):match("^HTTP/%S+ (%d+)")) end
--- The method of a request.
function Headers:get_method() return (self.first or ""):match("^(%u+) %S+ HTTP/") end
--- The target of a request.
function Headers:get_url() return (self.first or ""):match("^%u+ (%S+) HTTP/") end
--- The HTTP version, such as "HTTP/1.1".
function Headers:get_version() return (self.first or ""):match("^(HTTP/%S+)") or (self.first or ""):match(" (HTTP/%S+)$") end

function Headers:__tostring()
    local lines = { self.first }
    for _, line in ipairs(self.lines) do lines[#lines + 1] = line.name .. ": " .. line.value end
    return table.concat(lines, "\r\n")
end

local function sorted_keys(of)
    local keys = {}
    for key in pairs(of) do keys[#keys + 1] = key end
    table.sort(keys, function(one, other) return tostring(one) < tostring(other) end)
    return keys
end

local function percent(text)
    return (tostring(text):gsub("[^%w_.~-]", function(byte) return string.format("%%%02X", byte:byte()) end))
end

--- Returns `url` with the parameters added to its query.
function Headers.with_query(url, parameters)
    local words = {}
    for _, name in ipairs(sorted_keys(parameters)) do words[#words + 1] = percent(name) .. "=" .. percent(parameters[name]) end
    if #words == 0 then return url end
    return url .. (url:find("?", 1, true) and "&" or "?") .. table.concat(words, "&")
end

local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function quoted(text)
    return '"' .. text:gsub('[%c"\\\127]', function(byte)
        return ESCAPES[byte] or string.format("\\u%04x", byte:byte())
    end) .. '"'
end

--- Converts a table, string, number or boolean to JSON. A table is an array if it has a first item or is empty. Raises an
-- error for a value that JSON does not have.
function Headers.json(value, depth)
    depth = depth or 0
    if depth > 100 then error("JSON: nested too deep") end
    local kind = type(value)
    if kind == "string" then return quoted(value) end
    if kind == "boolean" then return tostring(value) end
    if kind == "number" then
        if value ~= value or value == math.huge or value == -math.huge then error("JSON: no such number: " .. tostring(value)) end
        return (string.format("%.14g", value))
    end
    if kind ~= "table" then error("JSON: cannot encode a " .. kind) end
    local words = {}
    if #value > 0 or next(value) == nil then
        for index = 1, #value do words[index] = Headers.json(value[index], depth + 1) end
        return "[" .. table.concat(words, ",") .. "]"
    end
    for _, key in ipairs(sorted_keys(value)) do
        words[#words + 1] = quoted(tostring(key)) .. ":" .. Headers.json(value[key], depth + 1)
    end
    return "{" .. table.concat(words, ",") .. "}"
end

return Headers
