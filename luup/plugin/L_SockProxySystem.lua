--- The machine that the SockProxy plugin runs on.
-- Owns the table of paths, file helpers, and the detection of the CPU and of the owner of each of the daemon's
-- files. Writes single files atomically. Starts no daemon, and stops one by the command STOP of the daemon's protocol alone.
-- MIT licence; part of sockproxyd.

local System = {}

--- Every path and address that the plugin uses.
System.paths = {
    uploads = "/etc/cmh-ludl",          -- Vera's "Luup files" page writes here
    config  = "/etc/sockproxyd.cf",     -- read by the init script
    init    = "/etc/init.d/sockproxyd", -- the same path for every kind of installation
    rcd     = "/etc/rc.d",
    program = "/usr/sbin/sockproxyd",   -- started by the init script: the opkg package's daemon, or the plugin's launcher
    runtime = "/tmp/sockproxyd-run",    -- in memory: the launcher expands the daemon here
    work    = "/tmp/sockproxyd-setup",  -- in memory: output and state of running commands
    opkg    = "/usr/lib/opkg/info/sockproxyd.list",
    pidfile = "/var/run/sockproxyd.pid",
    icons   = "/www/cmh/skins/default/icons",
    states  = "/www/cmh/skins/default/img/devices/device_states", -- AltAppStore puts icons here on UI7
    open_files = ".",                   -- openLuup runs in the folder of the plugins' files
    open_icons = "icons",
    engine  = "/proc/self/exe",         -- the Luup engine's program: its ELF header names the CPU
    host    = "127.0.0.1",              -- default, if the configuration sets none
    port    = 2504,
}

--- Quotes a word for the shell.
function System.quoted(word)
    return "'" .. tostring(word):gsub("'", "'\\''") .. "'"
end

--- Returns the content of a file, or its first `limit` bytes; nil if the file cannot be read.
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

--- Writes a file atomically: a reader sees the old or the new content. Returns true, or nil and the reason
-- (such as a full flash).
function System.write(path, text, mode)
    local new = path .. ".new"
    local file, why = io.open(new, "wb")
    if not file then return nil, why end
    local written = file:write(text)
    local closed = file:close()
    -- Lua's buffer hides a full flash from write(), and some C libraries do not report it at close(): read
    -- the file back.
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

--- Returns the permissions of a file for System.write, such as "640"; nil if there is no such file.
function System.mode(path)
    local list = io.popen("ls -ldL " .. System.quoted(path) .. " 2>/dev/null")
    local letters = list and list:read("*a"):match("^.([rwxsStT%-]+)")
    if list then list:close() end
    if not letters or #letters < 9 then return nil end
    return (letters:sub(1, 9):gsub("(.)(.)(.)", function(read, write, execute)
        return (read == "r" and 4 or 0) + (write == "w" and 2 or 0) + (execute:match("[xst]") and 1 or 0)
    end))
end

--- Returns the names in a folder that match a Lua pattern.
function System.list(folder, pattern)
    local names = {}
    local list = io.popen("ls -a " .. System.quoted(folder) .. " 2>/dev/null")
    if not list then return names end
    for name in list:lines() do
        if name:match(pattern) then names[#names + 1] = name end
    end
    list:close()
    return names
end

--- Returns the CPU of an ELF file: its class, byte order and machine as one string, such as "1.1.8" for
-- 32-bit little-endian MIPS; nil if the file is not ELF.
function System.cpu(path)
    local head = System.read(path, 20)
    if not head or #head < 20 or head:sub(1, 4) ~= "\127ELF" then return nil end
    local class, order = head:byte(5), head:byte(6)
    local first, second = head:byte(19, 20)
    local machine = order == 2 and first * 256 + second or second * 256 + first
    return string.format("%d.%d.%d", class, order, machine)
end

--- The readable name of a value of System.cpu.
function System.cpu_name(cpu)
    local names = {
        ["1.1.8"] = "MIPS little-endian", ["1.2.8"] = "MIPS big-endian", ["1.1.40"] = "ARM",
        ["2.1.183"] = "ARM64", ["2.1.62"] = "x86-64", ["1.1.3"] = "x86",
    }
    return names[cpu or ""] or ("an unknown CPU (" .. tostring(cpu) .. ")")
end

--- The origin of the init script: "absent", "ours" (from the plugin or from the opkg package; they are
-- equal), "lua" (from the Lua daemon's plugin) or "foreign".
function System.init_kind(mark)
    local text = System.read(System.paths.init)
    if not text then return "absent" end
    if text:find("sockproxyd.lua", 1, true) then return "lua" end
    if text:find(mark, 1, true) then return "ours" end
    return "foreign"
end

--- The kind of file at the path that the init script starts: "absent", "launcher" (the plugin's) or
-- "program".
function System.program_kind()
    local head = System.read(System.paths.program, 64)
    if not head then return "absent" end
    return head:find("# sockproxyd-launcher:", 1, true) and "launcher" or "program"
end

--- True if the opkg package is installed; it then owns init script and daemon.
function System.packaged()
    return System.exists(System.paths.opkg)
end

--- True on a Vera, where the plugin can install the daemon. It starts a program to find out.
function System.is_vera(luup)
    return luup.openLuup == nil and #System.list(System.paths.uploads, "^%.$") == 1
end

--- True if the init script is enabled for boot.
function System.enabled()
    return #System.list(System.paths.rcd, "^S%d+sockproxyd$") > 0
end

--- Returns the address and port on which the daemon listens.
function System.daemon_address()
    local host, port, section = System.paths.host, System.paths.port, nil
    for line in (System.read(System.paths.config) or ""):gmatch("[^\r\n]+") do
        local key, value = line:match("^%s*([%w_]+)%s*=%s*(.-)%s*$")
        section = line:match("^%s*%[%s*(.-)%s*%]") or section
        if key and section and section:lower() == "host" then
            if key:lower() == "port" then port = tonumber(value) or port end
            -- A single address. Every other spelling means all addresses.
            if key:lower() == "ip" and value:match("^%d+%.%d+%.%d+%.%d+$") and value ~= "0.0.0.0" then host = value end
        end
    end
    return host, port
end

--- Returns the text of a configuration with `debug` set to on or off. Every other line stays as it is.
function System.with_debug(text, on)
    local line = "debug=" .. (on and "on" or "off")
    local section, header, done, lines = nil, nil, false, {}
    for one in text:gmatch("[^\n]*\n?") do
        if one == "" then break end
        local name = one:match("^%s*%[%s*(.-)%s*%]")
        section = name and name:lower() or section
        local key = one:match("^%s*(%a+)%s*=") or one:match("^%s*(%a+)%s*$")
        if section == "host" and key and key:lower() == "debug" then
            one = line .. "\n"
            done = true
        end
        lines[#lines + 1] = one
        if name and section == "host" and not header then header = #lines end
    end
    if done then return table.concat(lines) end
    if not header then
        lines[#lines + 1] = "[host]\n"
        header = #lines
    end
    if header > 1 and not lines[header - 1]:match("\n$") then lines[header - 1] = lines[header - 1] .. "\n" end
    if not lines[header]:match("\n$") then lines[header] = lines[header] .. "\n" end
    table.insert(lines, header + 1, line .. "\n")
    return table.concat(lines)
end

--- Sends STOP to the daemon on the port. Returns true if the daemon confirmed it.
function System.send_stop(seconds)
    local socket = require "socket"
    local sock = socket.tcp()
    sock:settimeout(seconds)
    local reply = sock:connect(System.daemon_address())
        and sock:receive("*l") and sock:send("STOP\n") and sock:receive("*l")
    sock:close()
    return reply == "OK STOP"
end

return System
