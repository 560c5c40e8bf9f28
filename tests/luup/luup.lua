--- A simulated Luup engine, as far as the SockProxy plugin uses it.
-- Loads the plugin as a Vera does: from /etc/cmh-ludl, where every file is stored compressed as NAME.lzo,
-- starting with the device's XML files. Timed calls run one after another, `SPEED` times faster than requested;
-- calls that lie far ahead run only when a test calls Engine.fire.

local socket = require "socket"

local Engine = { SPEED = 5, files = "/etc/cmh-ludl" }

-- Seconds. Calls that are further ahead wait for Engine.fire.
local FAR = 100

local function slurp(path)
    local file = io.open(path, "rb")
    if not file then return nil end
    local text = file:read("*a")
    file:close()
    return text
end

--- Returns the content of a plugin file, compressed or not.
function Engine.file(name)
    local packed = Engine.files .. "/" .. name .. ".lzo"
    if slurp(packed) then
        local plain = os.tmpname()
        os.execute(string.format("pluto-lzo d %s %s", packed, plain))
        local text = slurp(plain)
        os.remove(plain)
        return text
    end
    return slurp(Engine.files .. "/" .. name)
end

local function loader(module)
    local text = module:match("^L_") and Engine.file(module .. ".lua")
    if not text then return "\n\tno plugin file '" .. module .. ".lua'" end
    return assert(loadstring(text, "@" .. module .. ".lua"))
end
table.insert(package.loaders, 2, loader)

local function unescaped(xml)
    return (xml:gsub("&lt;", "<"):gsub("&gt;", ">"):gsub("&quot;", '"'):gsub("&apos;", "'"):gsub("&amp;", "&"))
end

local function element(xml, name)
    return xml:match("<" .. name .. ">(.-)</" .. name .. ">")
end

--- Starts the engine with the plugin's current files, as a Luup reload does. Variables and the device's number
-- persist as on a Vera. `options.open` simulates openLuup, `options.version_major` another user interface than UI7, and
-- `options.attributes` are the device's; `options.before` is called before the plugin starts.
-- Returns the engine with the device started.
function Engine.start(options)
    options = options or {}
    local self = {
        variables = options.variables or {}, logged = {}, queue = {}, now = 0, slowest = 0, failed = nil, device = 17,
        attributes = options.attributes or {}, handlers = {},
    }
    for module in pairs(package.loaded) do
        if module:match("^L_SockProxy") then package.loaded[module] = nil end
    end
    if options.before then options.before() end

    local luup = { openLuup = options.open and {} or nil, version_major = options.version_major or 7 }
    function luup.log(text) self.logged[#self.logged + 1] = text end
    function luup.set_failure(value, device)
        assert(device == self.device, "set_failure: device")
        self.failed = value
    end
    function luup.attr_get(name, device)
        assert(device == self.device, "attr_get: device")
        return self.attributes[name]
    end
    function luup.attr_set(name, value, device)
        assert(device == self.device and type(value) == "string", "attr_set: arguments")
        self.attributes[name] = value
    end
    function luup.register_handler(name, request)
        assert(type(_G[name]) == "function", "register_handler: no global function " .. tostring(name))
        self.handlers[request] = name
    end
    function luup.variable_get(service, name, device)
        assert(device == self.device, "variable_get: device")
        return self.variables[service .. "/" .. name]
    end
    function luup.variable_set(service, name, value, device)
        assert(device == self.device and type(value) == "string", "variable_set: arguments")
        self.variables[service .. "/" .. name] = value
    end
    function luup.call_delay(name, seconds, data)
        assert(type(_G[name]) == "function", "call_delay: no global function " .. tostring(name))
        assert(seconds >= 1 and seconds % 1 == 0 and type(data) == "string", "call_delay: arguments")
        table.insert(self.queue, { name = name, due = self.now + seconds, far = seconds >= FAR })
    end
    _G.luup = luup

    -- Runs a function as Luup does, and records the longest run time.
    function self.timed(run, ...)
        local before = socket.gettime()
        local results = { run(...) }
        self.slowest = math.max(self.slowest, socket.gettime() - before)
        return unpack(results)
    end

    --- Runs timed calls until `ready()` is true, or for `seconds` of real time. Returns false if `ready()` did not
    -- become true.
    function self.run(ready, seconds)
        local stop_at = socket.gettime() + (seconds or 60)
        while not ready() do
            local next_index
            for index, call in ipairs(self.queue) do
                if not call.far and (not next_index or call.due < self.queue[next_index].due) then next_index = index end
            end
            if not next_index or socket.gettime() > stop_at then return false end
            local call = table.remove(self.queue, next_index)
            if call.due > self.now then socket.sleep((call.due - self.now) / Engine.SPEED) end
            self.now = math.max(self.now, call.due)
            self.timed(_G[call.name], "")
        end
        return true
    end

    --- Runs the calls that lie far ahead. Returns their number.
    function self.fire()
        local calls = {}
        for index = #self.queue, 1, -1 do
            if self.queue[index].far then table.insert(calls, table.remove(self.queue, index)) end
        end
        for _, call in ipairs(calls) do self.timed(_G[call.name], "") end
        return #calls
    end

    local xml = assert(Engine.file("I_SockProxy1.xml"), "no I_SockProxy1.xml")
    assert(loadstring(unescaped(element(xml, "functions")), "@I_SockProxy1.xml"))()

    --- Runs an action of the device as a job. Returns the job's status: 4 done, 2 failed.
    function self.action(name, arguments)
        for action in xml:gmatch("<action>(.-)</action>") do
            if element(action, "name") == name then
                local code = "local lul_device, lul_settings, lul_job = ...\n" .. unescaped(element(action, "job"))
                return (self.timed(assert(loadstring(code, "@" .. name)), self.device, arguments or {}, 1))
            end
        end
        error("no action " .. name)
    end

    --- Sends the request "lr_" .. name to the plugin. Returns body and content type.
    function self.request(name, parameters)
        return self.timed(_G[assert(self.handlers[name], "no handler of " .. name)], name, parameters or {}, "")
    end

    self.started, self.start_message = self.timed(_G[element(xml, "startup")], self.device)
    return self
end

return Engine
