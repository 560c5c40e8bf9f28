--- Classes with the interface of middleclass, which turbo and its plugins use: class(name, super), new(), initialize(),
-- include(), subclass(), super, name, isInstanceOf(), isSubclassOf().
--
-- Owns how a class finds its methods. An instance finds those of its class and of the classes above, and nothing that
-- belongs to the class itself, such as its name. __tostring is inherited; other metamethods are not.
-- MIT licence; part of sockproxyd.

local Class = {}

function Class:new(...)
    local instance = setmetatable({}, self.methods)
    instance:initialize(...)
    return instance
end

--- Adds the functions of a mixin. Returns the class.
function Class:include(...)
    for _, mixin in ipairs { ... } do
        for name, method in pairs(mixin) do
            if name ~= "included" then self.methods[name] = method end
        end
        if type(mixin.included) == "function" then mixin:included(self) end
    end
    return self
end

--- True if a class is below another one.
function Class:isSubclassOf(other)
    local class = self.super
    while class and class ~= other do class = class.super end
    return class ~= nil
end

--- Returns a new class. `super`: the class whose methods it inherits, or nil.
local function new_class(name, super)
    if type(name) ~= "string" then error("a class needs a name", 2) end
    local methods, class = {}, {}
    methods.__index = methods
    -- Lua looks for a metamethod in the metatable itself, and not above it.
    function methods.__tostring(instance)
        return super and super.methods.__tostring(instance) or "instance of class " .. instance.class.name
    end
    if super then
        setmetatable(methods, { __index = super.methods })
    else
        function methods.initialize() end
        --- True if an object is of a class, or of one below it.
        function methods.isInstanceOf(instance, other)
            local of = instance.class
            return of == other or of:isSubclassOf(other)
        end
    end
    methods.class = class
    class.name, class.super, class.methods = name, super, methods
    --- Returns a new class below this one.
    function class.subclass(_, called) return new_class(called, class) end
    return setmetatable(class, {
        __index = function(_, key)
            local own = Class[key]
            if own ~= nil then return own end
            return methods[key]
        end,
        -- What is assigned to a class is for its instances.
        __newindex = methods,
        __call = Class.new,
        __tostring = function() return "class " .. name end,
    })
end

return new_class
