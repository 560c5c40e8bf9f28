-- Checks that every public function of the Lua libraries has a doc comment, so that scripts/lua-docs has it, and that the rockspec has
-- every library.
--
-- usage: lua5.1 documented.lua ROOT FILE...
--
-- FILE: the libraries, whose names begin with ROOT. Needs LuaSocket. Prints what is missing; exit status 1 then.

local root = arg[1]
package.path = root .. "/luup/client/?.lua;" .. root .. "/luup/compat/?.lua;" .. package.path
local faults = {}
local function report(...) faults[#faults + 1] = string.format(...) end

local rockspec = {}
setfenv(assert(loadfile(root .. "/sockproxy-client-scm-1.rockspec")), rockspec)()
local listed = {}
for name, path in pairs(rockspec.build.modules) do listed[path] = name end

-- What plugins call: the functions in the tables of these modules, and in tables there.
local PUBLIC = {
    "L_SockProxyClient", "L_SockProxyConnection", "L_SockProxyListener", "L_SockProxy_LuWS", "L_SockProxyVeraWebSockets",
    "L_SockProxyTurbo", "L_SockProxyTurboServer", "L_SockProxyTurboStream", "L_SockProxyHeaders",
}

local sources = {}
for index = 2, #arg do
    local lines, path = {}, arg[index]:sub(#root + 2)
    for line in io.lines(arg[index]) do lines[#lines + 1] = line end
    sources[arg[index]] = lines
    local module = path:match("([^/]+)%.lua$")
    if listed[path] ~= module then report("%s is not in the rockspec", path) end
    listed[path] = nil
    if not lines[1]:match("^%-%-%- %w") then report("%s: no head", path) end
end
for path in pairs(listed) do report("the rockspec has %s, which does not exist", path) end

-- True if the comment above that line begins with "---".
local function has_doc_comment(lines, number)
    local above = number - 1
    while above > 1 and lines[above]:match("^%s*%-%-") and not lines[above]:match("^%s*%-%-%-") do above = above - 1 end
    return lines[above]:match("^%s*%-%-%-") ~= nil
end

local checked = {}
local function check(path, container)
    if checked[container] then return end
    checked[container] = true
    for name, value in pairs(container) do
        local inner = path .. "." .. tostring(name)
        -- Names that begin with "_" are internal, or metamethods.
        if type(value) == "function" and not tostring(name):match("^_") then
            local from = debug.getinfo(value, "S")
            local lines = sources[from.source:gsub("^@", "")]
            if not lines then
                report("%s is not of this project", inner)
            elseif not has_doc_comment(lines, from.linedefined) then
                report("%s:%d: %s has no doc comment", from.short_src, from.linedefined, inner)
            end
        elseif type(value) == "table" then
            check(inner, value)
        end
    end
end
for _, module in ipairs(PUBLIC) do check(module, require(module)) end

for _, fault in ipairs(faults) do print(fault) end
os.exit(#faults == 0 and 0 or 1)
