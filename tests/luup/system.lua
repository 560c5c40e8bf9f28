--- What the cases do to their box, and what they look at.

local socket = require "socket"

local Box = {}

Box.UPLOADS = "/etc/cmh-ludl"
Box.INIT = "/etc/init.d/sockproxyd"
Box.PROGRAM = "/usr/sbin/sockproxyd"
Box.RUNNING = "/tmp/sockproxyd-run/sockproxyd"
-- The daemon of an upload for this machine, as Luup stores it.
Box.PACKED = Box.UPLOADS .. "/sockproxyd-here.bin.lzo"

--- Runs a shell command; returns true if it succeeded.
function Box.sh(format, ...)
    return os.execute(string.format(format, ...)) == 0
end

function Box.must(format, ...)
    local command = string.format(format, ...)
    assert(os.execute(command) == 0, "failed: " .. command)
end

function Box.read(path)
    local file = io.open(path, "rb")
    if not file then return nil end
    local text = file:read("*a")
    file:close()
    return text
end

function Box.write(path, text)
    local file = assert(io.open(path, "wb"))
    file:write(text)
    file:close()
end

--- Output of a shell command.
function Box.output(format, ...)
    local pipe = io.popen(string.format(format, ...))
    local text = pipe:read("*a")
    pipe:close()
    return text
end

--- Names of the files of an upload.
function Box.upload_names(upload)
    local names = {}
    for name in Box.output("ls /test/uploads/%s", upload):gmatch("[^\n]+") do names[#names + 1] = name end
    assert(#names > 8, "no upload " .. upload)
    return names
end

--- Uploads as Vera's "Luup files" page does: all of it compressed, as NAME.lzo.
function Box.upload(upload, plain)
    for _, name in ipairs(Box.upload_names(upload)) do
        local source = string.format("/test/uploads/%s/%s", upload, name)
        if plain and name:match(plain) then
            Box.must("cp %s %s/%s", source, Box.UPLOADS, name)
        else
            Box.must("pluto-lzo c %s %s/%s.lzo", source, Box.UPLOADS, name)
        end
    end
end

--- What L_SockProxyFiles.lua of an upload holds.
function Box.manifest(upload)
    return dofile("/test/uploads/" .. upload .. "/L_SockProxyFiles.lua")
end

--- The box gets procd, as the newer Veras have it; it has none before.
function Box.procd()
    Box.must("ln -s /bin/true /sbin/procd")
end

--- The init script that the Lua daemon's plugin writes on this box.
function Box.lua_init()
    return "/test/init-" .. (Box.read("/sbin/procd") and "procd" or "classic")
end

--- The Lua daemon as its plugin leaves it, running.
function Box.lua_daemon()
    Box.must("cp /test/sockproxyd.lua %s/sockproxyd.lua", Box.UPLOADS)
    Box.must("pluto-lzo c /test/sockproxyd.lua %s/sockproxyd.lua.lzo", Box.UPLOADS)
    Box.must("cp %s %s", Box.lua_init(), Box.INIT)
    Box.must("%s enable", Box.INIT)
    Box.must("%s start >/dev/null 2>&1", Box.INIT)
    Box.await("the Lua daemon answers", function() return Box.build() == 23068 end)
    return Box.pid("lua /etc/cmh")
end

--- Asks the daemon for its build number; nil if none answers.
function Box.build()
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

--- The lowest process whose command line begins with, or whose program is, `what`; nil if there is none.
function Box.pid(what)
    for number in Box.output("ls /proc"):gmatch("%d+") do
        local line = (Box.read("/proc/" .. number .. "/cmdline") or ""):gsub("%z", " ")
        if line:sub(1, #what) == what then return tonumber(number) end
    end
    return nil
end

--- Waits up to 30 s until `ready()` is true.
function Box.await(what, ready)
    local stop_at = socket.gettime() + 30
    while not ready() do
        assert(socket.gettime() < stop_at, "waited in vain until " .. what)
        socket.sleep(0.02)
    end
end

--- A text that changes when any file below the folders does (content, name, mode or time).
function Box.snapshot(...)
    local list = table.concat({ ... }, " ")
    return Box.output("find %s -type f -o -type l | sort | xargs ls -ld; find %s -type f | sort | xargs md5sum", list, list)
end

return Box
