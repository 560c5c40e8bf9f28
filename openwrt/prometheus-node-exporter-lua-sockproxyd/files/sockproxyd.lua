-- Collector of prometheus-node-exporter-lua: the metrics of the sockproxyd that runs on this machine.

local ubus = require "ubus"

local PROGRAM = "/usr/sbin/sockproxyd"
local CONFIGURATION = "/etc/sockproxyd.cf"

-- Returns the program and arguments that procd has started the proxy with, which name its configuration, address and
-- port. Without such a proxy, returns those of one with the installed configuration.
local function proxy_command()
  local connection = ubus.connect()
  local services = connection and connection:call("service", "list", { name = "sockproxyd" })
  if connection then connection:close() end
  for _, instance in pairs(services and services.sockproxyd and services.sockproxyd.instances or {}) do
    if instance.command then return instance.command end
  end
  return { PROGRAM, "-c", CONFIGURATION }
end

-- Returns a word in quotes for the shell.
local function quoted(word)
  return "'" .. word:gsub("'", "'\\''") .. "'"
end

-- Asks the proxy. Raises an error if it does not answer; the exporter then says that this collector has failed.
local function proxy_metrics()
  local words = {}
  for _, word in ipairs(proxy_command()) do words[#words + 1] = quoted(word) end
  local pipe = assert(io.popen(table.concat(words, " ") .. " --status=prometheus 2>&1 </dev/null"))
  local text = pipe:read("*a")
  pipe:close()
  if text:sub(1, 2) ~= "# " then error("sockproxyd gives no metrics: " .. text, 0) end
  return text
end

-- Returns the labels of a sample: what stands between its braces. The values keep their escapes, because the exporter
-- writes values as they are.
local function labels_of(text)
  local labels, at = {}, 1
  while true do
    local name, first = text:match('^,?([%a_][%w_]*)="()', at)
    if not name then return labels end
    local last = first
    while last <= #text and text:sub(last, last) ~= '"' do
      last = last + (text:sub(last, last) == "\\" and 2 or 1)
    end
    labels[name] = text:sub(first, last - 1)
    at = last + 1
  end
end

local function scrape()
  local write
  for line in proxy_metrics():gmatch("[^\n]+") do
    local name, kind = line:match("^# TYPE (%S+) (%S+)$")
    if name then
      write = metric(name, kind)
    elseif line:sub(1, 1) ~= "#" then
      local labels, value = line:match("^[%w_:]+{(.*)} (%S+)$")
      if labels then
        write(labels_of(labels), value)
      else
        write(nil, line:match("^[%w_:]+ (%S+)$"))
      end
    end
  end
end

return { scrape = scrape }
