--- Runs one slow task at a time without blocking the Luup engine.
-- A task is a function that runs as a coroutine. Its slow steps, a command or a pause, go through this
-- module, and Luup continues meanwhile; `tick` resumes the task once a second. Time is counted in ticks,
-- because the clock of a Vera jumps by decades after boot.
-- MIT licence; part of sockproxyd.

local System = require "L_SockProxySystem"

local Task = {}

-- The running task: `name`, `thread`, `finished`, and the condition it waits for: `ready`, and `ticks` left.
local current = nil
local commands = 0
local schedule_tick = nil

--- Sets the function that makes Luup call Task.tick in about a second. Call it first.
function Task.init(schedule)
    schedule_tick = schedule
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
        schedule_tick()
        return
    end
    current = nil
    if alive then
        task.finished(first, second)
    else
        task.finished(false, "internal error: " .. tostring(first))
    end
end

--- Starts `work()` as a task. At its end, `finished(ok, message)` is called with its results. Returns false
-- and does nothing while another task runs.
function Task.start(name, work, finished)
    if current then return false end
    current = { name = name, thread = coroutine.create(work), finished = finished }
    resume()
    return true
end

--- Resumes the running task if its condition is true or its time is up.
function Task.tick()
    if not current then return end
    local ok, result = pcall(current.ready)
    current.ticks = current.ticks - 1
    if not ok then
        local task = current
        current = nil
        task.finished(false, "internal error: " .. tostring(result))
    elseif result or current.ticks <= 0 then
        resume(result)
    else
        schedule_tick()
    end
end

--- Only in a task: waits until `ready()` is true, `ticks` seconds at most. Returns the last result of
-- `ready()`.
function Task.wait(ready, ticks)
    return coroutine.yield(ready, ticks)
end

--- Only in a task: waits so many seconds.
function Task.sleep(ticks)
    coroutine.yield(function() return false end, ticks)
end

-- Closes inherited descriptors before a command runs. Children of Luup inherit the engine's sockets, and a
-- daemon that keeps them keeps port 3480 in use when the engine restarts. Some shells accept only one-digit
-- descriptors and exit with an error at others, so a subshell tests that first.
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

--- Only in a task: runs a simple command (words quoted for the shell, no lists or pipes) in the background.
-- After `limit` seconds it is ended by SIGTERM, then by SIGKILL. Returns its exit status and the last line
-- of its output, or nil and "timed out".
function Task.command(command, limit)
    commands = commands + 1
    local stem = string.format("%s/%d", System.paths.work, commands)
    os.execute("mkdir -p " .. System.quoted(System.paths.work))
    for _, suffix in ipairs { ".pid", ".out", ".status" } do os.remove(stem .. suffix) end
    local inner = string.format("echo $$ >%s.pid; exec %s", stem, command)
    os.execute(string.format("(%s sh -c %s >%s.out 2>&1; echo $? >%s.new; mv %s.new %s.status) </dev/null >/dev/null 2>&1 &",
        CLOSE_INHERITED, System.quoted(inner), stem, stem, stem, stem))

    local function ended() return System.exists(stem .. ".status") end
    local done = Task.wait(ended, limit)
    for _, signal in ipairs { "TERM", "KILL" } do
        if done then break end
        local pid = tonumber(System.read(stem .. ".pid") or "")
        if pid then os.execute(string.format("kill -%s %d 2>/dev/null", signal, pid)) end
        done = Task.wait(ended, 5)
        if done then return nil, "timed out" end
    end
    if not done then return nil, "timed out" end

    local status = tonumber(System.read(stem .. ".status"))
    local output = System.read(stem .. ".out") or ""
    for _, suffix in ipairs { ".pid", ".out", ".status" } do os.remove(stem .. suffix) end
    local last = ""
    for line in output:gmatch("[^\r\n]+") do last = line end
    return status, last
end

return Task
