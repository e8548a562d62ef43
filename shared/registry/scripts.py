"""The Lua scripts that change a task in Redis, each atomic, and the keys they work on.

A call carries an id that is kept in the history entry it makes, so that a script sent again after
a lost reply finds its own entry and changes nothing twice.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

from shared.registry.base import checked_task

CHANNEL = "tracer:changes"
MAX_HISTORY = 1000


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one task. The braces are a hash tag: a cluster keeps them on one slot."""

    fence: str  # integer: the newest fence
    active: str  # hash: version ("" when none), epoch
    order: str  # list: stored versions, oldest first
    manifests: str  # hash: version -> manifest bytes
    files: str  # hash: version -> SHA-256s of its blobs, separated by spaces
    blobs: str  # hash: version/SHA-256 -> blob bytes
    history: str  # list: JSON entries, newest first
    trail: str  # list: versions active before the current one, newest first

    @classmethod
    def of(cls, task: str) -> Keys:
        """Raises ValueError when `task` is not a task name."""
        prefix = f"tracer:{{{checked_task(task)}}}:"
        return cls(*(prefix + name for name in cls.__slots__))

    def all(self) -> list[str]:
        """In the order in which the scripts expect them."""
        return list(astuple(self))


# ARGV of every script: channel, task, call id, time, reason; then its own.
_COMMON = f"""
local FENCE, ACTIVE, ORDER, MANIFESTS, FILES, BLOBS, HISTORY, TRAIL = unpack(KEYS)
local CHANNEL, TASK, CALL, AT, REASON = unpack(ARGV, 1, 5)

local function active_version()
  local version = redis.call('HGET', ACTIVE, 'version')
  if version == '' then return false end
  return version
end

local function done_before()
  local newest = redis.call('LINDEX', HISTORY, 0)
  return newest and cjson.decode(newest).call == CALL and newest
end

local function change(kind, version)
  local previous = active_version()
  local epoch = redis.call('HINCRBY', ACTIVE, 'epoch', 1)
  redis.call('HSET', ACTIVE, 'version', version or '')
  local entry = cjson.encode({{
    kind = kind, version = version or cjson.null, previous = previous or cjson.null,
    epoch = epoch, at = AT, reason = REASON, call = CALL}})
  redis.call('LPUSH', HISTORY, entry)
  redis.call('LTRIM', HISTORY, 0, {MAX_HISTORY - 1})
  redis.call('PUBLISH', CHANNEL, TASK)
  return entry
end
"""

# ARGV: fence, version, versions to keep, manifest, then SHA-256 and bytes of each blob.
PUBLISH = (
    _COMMON
    + """
local fence, version, keep, manifest = unpack(ARGV, 6, 9)

local function store()
  if redis.call('HEXISTS', MANIFESTS, version) == 0 then
    redis.call('RPUSH', ORDER, version)
  end
  redis.call('HSET', MANIFESTS, version, manifest)
  local names = {}
  for i = 10, #ARGV, 2 do
    names[#names + 1] = ARGV[i]
    redis.call('HSET', BLOBS, version .. '/' .. ARGV[i], ARGV[i + 1])
  end
  redis.call('HSET', FILES, version, table.concat(names, ' '))
end

local function delete(old)
  for name in string.gmatch(redis.call('HGET', FILES, old) or '', '%S+') do
    redis.call('HDEL', BLOBS, old .. '/' .. name)
  end
  redis.call('HDEL', FILES, old)
  redis.call('HDEL', MANIFESTS, old)
  redis.call('LREM', ORDER, 0, old)
  redis.call('LREM', TRAIL, 0, old)
end

local function prune()
  local spare = redis.call('LINDEX', TRAIL, 0)
  local excess = redis.call('LLEN', ORDER) - tonumber(keep)
  for _, old in ipairs(redis.call('LRANGE', ORDER, 0, -1)) do
    if excess <= 0 then break end
    if old ~= version and old ~= spare then
      delete(old)
      excess = excess - 1
    end
  end
end

local newest = redis.call('GET', FENCE) or '0'
if newest ~= fence then return {'stale', newest} end
store()
local previous = active_version()
if previous ~= version then
  redis.call('LREM', TRAIL, 0, version)
  if previous then redis.call('LPUSH', TRAIL, previous) end
  change('published', version)
  prune()
end
return {'ok', redis.call('HGET', ACTIVE, 'epoch')}
"""
)

# ARGV: the version to return to, or "" for the one before.
ROLLBACK = (
    _COMMON
    + """
local target = ARGV[6]
local mine = done_before()
if mine then return {'ok', mine} end
local previous = active_version()
if target == '' then
  target = redis.call('LINDEX', TRAIL, 0)
  if not target then return {'unknown'} end
elseif redis.call('HEXISTS', MANIFESTS, target) == 0 then
  return {'unknown'}
elseif target == previous then
  return {'ok', redis.call('LINDEX', HISTORY, 0)}
end
local depth = false
for i, version in ipairs(redis.call('LRANGE', TRAIL, 0, -1)) do
  if version == target then depth = i end
end
if depth then
  redis.call('LTRIM', TRAIL, depth, -1)
elseif previous then
  redis.call('LPUSH', TRAIL, previous)
end
return {'ok', change('rolled_back', target)}
"""
)

RETIRE = (
    _COMMON
    + """
local mine = done_before()
if mine then return {'ok', mine} end
if not active_version() then return {'unknown'} end
return {'ok', change('retired', false)}
"""
)
