-- Checks that every public function of the Lua libraries has a doc comment, and that the rockspec has every library.
--
-- usage: lua5.1 documented.lua ROOT FILE...
--
-- FILE: the libraries, whose names begin with ROOT. Prints what is missing; exit status 1 then.

local root = arg[1]
local faults = {}

local rockspec = {}
setfenv(assert(loadfile(root .. "/sockproxy-client-scm-1.rockspec")), rockspec)()
local listed = {}
for name, path in pairs(rockspec.build.modules) do listed[path] = name end

-- What plugins call: the tables of these files.
local PUBLIC = {
    L_SockProxyClient = "Client", L_SockProxyConnection = "Connection", L_SockProxyListener = "Listener", L_SockProxy_LuWS = "LuWS",
    L_SockProxyVeraWebSockets = "vws", L_SockProxyTurbo = "turbo", L_SockProxyTurboServer = "Application",
    L_SockProxyTurboStream = "Stream",
}

for index = 2, #arg do
    local path = arg[index]:sub(#root + 2)
    local module = path:match("([^/]+)%.lua$")
    if listed[path] ~= module then faults[#faults + 1] = path .. " is not in the rockspec" end
    listed[path] = nil
    local before, number, found = "", 0, 0
    for line in io.lines(arg[index]) do
        number = number + 1
        if number == 1 and not line:match("^%-%-%- %w") then faults[#faults + 1] = path .. ": no head" end
        local of, name = line:match("^%s*function%s+(%w+)[.:]([%w_]+)")
        if of and of == PUBLIC[module] and not name:match("^_") then
            found = found + 1
            if not before:match("^%s*%-%-") then
                faults[#faults + 1] = string.format("%s:%d: %s has no comment", path, number, name)
            end
        end
        if line ~= "" then before = line end
    end
    if PUBLIC[module] and found == 0 then faults[#faults + 1] = path .. " has no public function" end
end
for path in pairs(listed) do faults[#faults + 1] = "the rockspec has " .. path .. ", which does not exist" end

for _, fault in ipairs(faults) do print(fault) end
os.exit(#faults == 0 and 0 or 1)
