--- What the SockProxy plugin knows about the box it runs on.
-- Owns: the table of paths, file helpers, the CPU, who owns which of the daemon's files, and who
-- answers on the daemon's port. Looks, and writes single files whole; starts and stops nothing.
-- MIT licence; part of sockproxyd.

local System = {}

--- Every path and address that the plugin uses, in this one place, for whoever has to move them.
System.paths = {
    uploads = "/etc/cmh-ludl",          -- where Vera's "Luup files" page puts files
    config  = "/etc/sockproxyd.cf",     -- read by the init script
    init    = "/etc/init.d/sockproxyd", -- one init script, whoever installed it
    rcd     = "/etc/rc.d",
    program = "/usr/sbin/sockproxyd",   -- what the init script starts: the opkg package's daemon, or our launcher
    room    = "/tmp/sockproxyd-run",    -- memory: where the launcher expands the daemon
    work    = "/tmp/sockproxyd-setup",  -- memory: output and state of running commands
    opkg    = "/usr/lib/opkg/info/sockproxyd.list",
    pidfile = "/var/run/sockproxyd.pid",
    icons   = "/www/cmh/skins/default/icons",
    self    = "/proc/self/exe",         -- the Luup engine's program: shows which CPU it was built for
    host    = "127.0.0.1",              -- unless the configuration says otherwise
    port    = 2504,
}

-- The last build number that the Lua daemon ever answered to BILD.
local LAST_LUA_BUILD = 23068

--- Quotes a word for the shell.
function System.quoted(word)
    return "'" .. tostring(word):gsub("'", "'\\''") .. "'"
end

--- The content of a file, or its first `limit` bytes; nil if it cannot be read.
function System.read(path, limit)
    local file = io.open(path, "rb")
    if not file then return nil end
    local text = file:read(limit or "*a")
    file:close()
    return text or ""
end

function System.exists(path)
    local file = io.open(path, "rb")
    if file then file:close() end
    return file ~= nil
end

--- Writes a file so that whoever reads it sees the old or the new content, never a part of it.
-- Returns true, or nil and why not (a full flash shows here).
function System.write(path, text, mode)
    local new = path .. ".new"
    local file, why = io.open(new, "wb")
    if not file then return nil, why end
    local written = file:write(text)
    local closed = file:close()
    -- Lua's buffer hides a full flash from write, and not every libc reports it at close: look.
    if not written or not closed or System.read(new) ~= text then
        os.remove(new)
        return nil, path .. ": cannot be written, is the flash full?"
    end
    if os.execute(string.format("chmod %s %s", mode or "644", System.quoted(new))) ~= 0 then
        os.remove(new)
        return nil, path .. ": chmod failed"
    end
    return os.rename(new, path)
end

--- Names in a folder that match a Lua pattern.
function System.matching(folder, pattern)
    local names = {}
    local list = io.popen("ls -a " .. System.quoted(folder) .. " 2>/dev/null")
    if not list then return names end
    for name in list:lines() do
        if name:match(pattern) then names[#names + 1] = name end
    end
    list:close()
    return names
end

--- The CPU family of an ELF file: its class, byte order and machine as one string, such as
-- "1.1.8" for 32-bit little-endian MIPS; nil if the file is no ELF file.
function System.cpu(path)
    local head = System.read(path, 20)
    if not head or #head < 20 or head:sub(1, 4) ~= "\127ELF" then return nil end
    local class, order = head:byte(5), head:byte(6)
    local first, second = head:byte(19, 20)
    local machine = order == 2 and first * 256 + second or second * 256 + first
    return string.format("%d.%d.%d", class, order, machine)
end

--- For a person: what System.cpu says.
function System.cpu_name(cpu)
    local names = {
        ["1.1.8"] = "MIPS little-endian", ["1.2.8"] = "MIPS big-endian", ["1.1.40"] = "ARM",
        ["2.1.183"] = "ARM64", ["2.1.62"] = "x86-64", ["1.1.3"] = "x86",
    }
    return names[cpu or ""] or ("an unknown CPU (" .. tostring(cpu) .. ")")
end

--- Who wrote the init script at hand: "absent", "ours" (the plugin's or the opkg package's, which
-- are the same), "lua" (the Lua daemon's plugin) or "foreign".
function System.init_kind(mark)
    local text = System.read(System.paths.init)
    if not text then return "absent" end
    if text:find("sockproxyd.lua", 1, true) then return "lua" end
    if text:find(mark, 1, true) then return "ours" end
    return "foreign"
end

--- What lies where the init script looks for the daemon: "absent", "launcher" (ours) or "program".
function System.program_kind()
    local head = System.read(System.paths.program, 64)
    if not head then return "absent" end
    return head:find("# sockproxyd-launcher:", 1, true) and "launcher" or "program"
end

--- True if the opkg package is installed: then init script and daemon are its own.
function System.packaged()
    return System.exists(System.paths.opkg)
end

--- True on a Vera: there is what the plugin needs to install anything.
function System.is_vera(luup)
    return luup.openLuup == nil and #System.matching(System.paths.uploads, "^%.$") == 1
end

--- True if the init script is linked to run at boot.
function System.enabled()
    return #System.matching(System.paths.rcd, "^S%d+sockproxyd$") > 0
end

--- Address and port on which the daemon listens.
function System.whereabouts()
    local host, port, section = System.paths.host, System.paths.port, nil
    for line in (System.read(System.paths.config) or ""):gmatch("[^\r\n]+") do
        local key, value = line:match("^%s*([%w_]+)%s*=%s*(.-)%s*$")
        section = line:match("^%s*%[%s*(.-)%s*%]") or section
        if key and section and section:lower() == "host" then
            if key:lower() == "port" then port = tonumber(value) or port end
            -- An address of its own; every other spelling means all of them.
            if key:lower() == "ip" and value:match("^%d+%.%d+%.%d+%.%d+$") and value ~= "0.0.0.0" then host = value end
        end
    end
    return host, port
end

--- Asks who answers on the daemon's port. Takes `seconds` at most for each of two answers; nothing
-- of that on a box where the port is closed or the daemon is well.
-- Returns a table: `kind` is "none" (nobody listens), "ours", "lua" (the Lua daemon), "silent" or
-- "other" (somebody else's program); `build` and `protocol` are numbers where known.
function System.ask(seconds)
    local socket = require "socket"
    local sock = socket.tcp()
    sock:settimeout(seconds)
    local connected, why = sock:connect(System.whereabouts())
    if not connected then
        sock:close()
        -- A program that hangs takes no more connections at some time: somebody is there all the same.
        return { kind = why == "timeout" and "silent" or "none" }
    end
    local answer = { kind = "silent" }
    local greeting = sock:receive("*l")
    if greeting then
        answer.protocol = tonumber(greeting:match("^OK TOGGLEDBITS%-SOCKPROXY (%d+)"))
        answer.kind = "other"
        if answer.protocol then
            sock:send("BILD\n")
            -- Releases of the Lua daemon before BILD was known close the connection here.
            answer.build = tonumber(((sock:receive("*l") or ""):match("^OK (%d+)$")))
            answer.kind = (answer.build or 0) > LAST_LUA_BUILD and "ours" or "lua"
        end
    end
    -- No QUIT: who closes first keeps the port busy for a minute, and the Lua daemon could not start again.
    sock:close()
    return answer
end

--- Tells whatever daemon listens to end. True if it could be told.
function System.send_stop(seconds)
    local socket = require "socket"
    local sock = socket.tcp()
    sock:settimeout(seconds)
    local told = sock:connect(System.whereabouts())
        and sock:receive("*l") and sock:send("STOP\n") and sock:receive("*l")
    sock:close()
    return told == "OK STOP"
end

return System
