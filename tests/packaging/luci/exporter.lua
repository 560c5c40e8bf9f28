-- A simulation of prometheus-node-exporter-lua: runs the collector sockproxyd, and prints what it gives. Values of labels
-- are printed as they are. The order of labels is that of their names.
-- usage: lua exporter.lua COMMAND...     what procd says of the service; nothing: the service is unknown

package.path = "/usr/lib/lua/?.lua"
package.loaded.ubus = {
  connect = function()
    return {
      call = function(_, object, method, arguments)
        assert(object == "service" and method == "list" and arguments.name == "sockproxyd")
        if #arg == 0 then return {} end
        return { sockproxyd = { instances = { instance1 = { running = true, command = { unpack(arg) } } } } }
      end,
      close = function() end,
    }
  end,
}

function metric(name, kind)
  print("# TYPE " .. name .. " " .. kind)
  return function(labels, value)
    assert(tonumber(value), name)
    local words = {}
    for label, text in pairs(labels or {}) do words[#words + 1] = label .. '="' .. text .. '"' end
    table.sort(words)
    print(name .. (labels and "{" .. table.concat(words, ",") .. "}" or "") .. " " .. value)
  end
end

local works, reason = pcall(require("prometheus-collectors.sockproxyd").scrape)
if not works then
  print("failed: " .. tostring(reason))
  os.exit(1)
end
