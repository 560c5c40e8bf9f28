--- What the cases do to their sandbox and read from it.

local socket = require "socket"

local System = {}

System.UPLOADS = "/etc/cmh-ludl"
System.INIT = "/etc/init.d/sockproxyd"
System.PROGRAM = "/usr/sbin/sockproxyd"
System.RUNNING = "/tmp/sockproxyd-run/sockproxyd"
-- An upload's daemon for this machine, as Luup stores it.
System.PACKED = System.UPLOADS .. "/sockproxyd-here.bin.lzo"

--- Runs a shell command. Returns true if it succeeded.
function System.sh(format, ...)
    return os.execute(string.format(format, ...)) == 0
end

function System.must(format, ...)
    local command = string.format(format, ...)
    assert(os.execute(command) == 0, "failed: " .. command)
end

function System.read(path)
    local file = io.open(path, "rb")
    if not file then return nil end
    local text = file:read("*a")
    file:close()
    return text
end

function System.write(path, text)
    local file = assert(io.open(path, "wb"))
    file:write(text)
    file:close()
end

--- The output of a shell command.
function System.output(format, ...)
    local pipe = io.popen(string.format(format, ...))
    local text = pipe:read("*a")
    pipe:close()
    return text
end

--- The names of an upload's files.
function System.upload_names(upload)
    local names = {}
    for name in System.output("ls /test/uploads/%s", upload):gmatch("[^\n]+") do names[#names + 1] = name end
    assert(#names > 8, "no upload " .. upload)
    return names
end

--- Uploads as Vera's "Luup files" page does: every file compressed, as NAME.lzo. Names that match `plain` stay
-- uncompressed.
function System.upload(upload, plain)
    for _, name in ipairs(System.upload_names(upload)) do
        local source = string.format("/test/uploads/%s/%s", upload, name)
        if plain and name:match(plain) then
            System.must("cp %s %s/%s", source, System.UPLOADS, name)
        else
            System.must("pluto-lzo c %s %s/%s.lzo", source, System.UPLOADS, name)
        end
    end
end

--- The table of an upload's L_SockProxyFiles.lua.
function System.manifest(upload)
    return dofile("/test/uploads/" .. upload .. "/L_SockProxyFiles.lua")
end

--- Adds procd, which newer Veras have. A new sandbox has none.
function System.procd()
    System.must("ln -s /bin/true /sbin/procd")
end

--- The init script that the Lua daemon's plugin writes on this system.
function System.lua_init()
    return "/test/init-" .. (System.read("/sbin/procd") and "procd" or "classic")
end

--- Installs and starts the Lua daemon as its plugin does. Returns its process id.
function System.lua_daemon()
    System.must("cp /test/sockproxyd.lua %s/sockproxyd.lua", System.UPLOADS)
    System.must("pluto-lzo c /test/sockproxyd.lua %s/sockproxyd.lua.lzo", System.UPLOADS)
    System.must("cp %s %s", System.lua_init(), System.INIT)
    System.must("%s enable", System.INIT)
    System.must("%s start >/dev/null 2>&1", System.INIT)
    System.await("the Lua daemon answers", function() return System.build() == 23068 end)
    return System.pid("lua /etc/cmh")
end

--- Returns the daemon's build number, or nil if no daemon answers.
function System.build()
    local sock = socket.tcp()
    sock:settimeout(5)
    local build
    if sock:connect("127.0.0.1", 2504) then
        sock:receive("*l")
        sock:send("BILD\n")
        build = tonumber(((sock:receive("*l") or ""):match("^OK (%d+)$")))
    end
    sock:close()
    return build
end

--- Returns the lowest process id whose command line starts with `what`, or nil.
function System.pid(what)
    for number in System.output("ls /proc"):gmatch("%d+") do
        local line = (System.read("/proc/" .. number .. "/cmdline") or ""):gsub("%z", " ")
        if line:sub(1, #what) == what then return tonumber(number) end
    end
    return nil
end

--- Waits up to 30 s until `ready()` is true.
function System.await(what, ready)
    local stop_at = socket.gettime() + 30
    while not ready() do
        assert(socket.gettime() < stop_at, "timed out: " .. what)
        socket.sleep(0.02)
    end
end

--- A string that changes when a file below the folders changes (content, name, mode or time).
function System.snapshot(...)
    local list = table.concat({ ... }, " ")
    return System.output("find %s -type f -o -type l | sort | xargs ls -ld; find %s -type f | sort | xargs md5sum", list, list)
end

return System
