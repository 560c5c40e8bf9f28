--- One piece of slow work at a time, without ever holding up the Luup engine.
-- A task is a function that runs as a coroutine. What takes time in it, a command or a pause, goes
-- through this module, and Luup runs on meanwhile; `tick` takes the task further once a second.
-- Time is counted in ticks: the clock of a Vera jumps by decades after boot.
-- MIT licence; part of sockproxyd.

local System = require "L_SockProxySystem"

local Task = {}

-- The running task: `name`, `thread`, `finished`, and what it waits for: `ready`, `ticks` left.
local current = nil
local commands = 0
local call_me_again = nil

--- Says how to have Task.tick called in about a second. Call it before all else.
function Task.init(schedule)
    call_me_again = schedule
    current = nil
end

--- The name of the running task, or nil.
function Task.busy()
    return current and current.name
end

local function resume(...)
    local task = current
    local alive, first, second = coroutine.resume(task.thread, ...)
    if alive and coroutine.status(task.thread) ~= "dead" then
        task.ready, task.ticks = first, second
        call_me_again()
        return
    end
    current = nil
    if alive then
        task.finished(first, second)
    else
        task.finished(false, "internal error: " .. tostring(first))
    end
end

--- Starts `work()` as a task; when it ends, `finished(ok, message)` is called with what it returned.
-- Returns false, and does nothing, while another one runs.
function Task.start(name, work, finished)
    if current then return false end
    current = { name = name, thread = coroutine.create(work), finished = finished }
    resume()
    return true
end

--- Takes the running task further, if what it waits for has come or its time is up.
function Task.tick()
    if not current then return end
    local sound, came = pcall(current.ready)
    current.ticks = current.ticks - 1
    if not sound then
        local task = current
        current = nil
        task.finished(false, "internal error: " .. tostring(came))
    elseif came or current.ticks <= 0 then
        resume(came)
    else
        call_me_again()
    end
end

--- Only in a task: waits until `ready()` is true, `ticks` seconds at most. Returns what it gave last.
function Task.wait(ready, ticks)
    return coroutine.yield(ready, ticks)
end

--- Only in a task: waits that many seconds.
function Task.sleep(ticks)
    coroutine.yield(function() return false end, ticks)
end

-- Before anything is run from Luup: its children inherit the engine's sockets, and a daemon that
-- kept them would keep port 3480 busy when the engine restarts. Some shells take only one-digit
-- numbers, and would end with an error at others: ask a child of the shell first.
local CLOSE_INHERITED = [[
if (eval "exec 10>&-") 2>/dev/null; then all=yes; else all=; fi
for f in /proc/self/fd/*; do
    f=${f##*/}
    case $f in
        0|1|2) ;;
        [3-9]) eval "exec $f>&-" ;;
        *) if [ "$all" ]; then eval "exec $f>&-"; fi ;;
    esac
done
]]

--- Only in a task: runs a simple command (words quoted for the shell, no lists or pipes) in the background, ended by
-- SIGTERM, then SIGKILL, when it takes more than `limit` seconds.
-- Returns its exit status and the last line that it wrote, or nil and "timed out".
function Task.command(command, limit)
    commands = commands + 1
    local stem = string.format("%s/%d", System.paths.work, commands)
    os.execute("mkdir -p " .. System.quoted(System.paths.work))
    for _, suffix in ipairs { ".pid", ".out", ".status" } do os.remove(stem .. suffix) end
    local inner = string.format("echo $$ >%s.pid; exec %s", stem, command)
    os.execute(string.format("(%s sh -c %s >%s.out 2>&1; echo $? >%s.new; mv %s.new %s.status) </dev/null >/dev/null 2>&1 &",
        CLOSE_INHERITED, System.quoted(inner), stem, stem, stem, stem))

    local function ended() return System.exists(stem .. ".status") end
    local came = Task.wait(ended, limit)
    for _, signal in ipairs { "TERM", "KILL" } do
        if came then break end
        local pid = tonumber(System.read(stem .. ".pid") or "")
        if pid then os.execute(string.format("kill -%s %d 2>/dev/null", signal, pid)) end
        came = Task.wait(ended, 5)
        if came then return nil, "timed out" end
    end
    if not came then return nil, "timed out" end

    local status = tonumber(System.read(stem .. ".status"))
    local output = System.read(stem .. ".out") or ""
    for _, suffix in ipairs { ".pid", ".out", ".status" } do os.remove(stem .. suffix) end
    local last = ""
    for line in output:gmatch("[^\r\n]+") do last = line end
    return status, last
end

return Task
