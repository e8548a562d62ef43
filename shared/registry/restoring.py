"""The Lua script that gives a task back to a registry that lost it."""

from __future__ import annotations

from shared.registry.scripts import ACTIVE_FIELDS, COMMON, MAX_HISTORY

# How far fence and epoch jump. A saved state is a few seconds old at most: fewer have been given
# out meanwhile, so neither comes twice, and both go on growing.
JUMP = 1000

# ARGV: a SavedTask in JSON.
RESTORE = (
    COMMON
    + f"""
local JUMP, MAX_HISTORY = {JUMP}, {MAX_HISTORY}
"""
    + """
local saved = cjson.decode(ARGV[7])

local known = {}
local history = redis.call('LRANGE', HISTORY, 0, -1)
for _, entry in ipairs(history) do known[entry] = true end
if #saved.history == 0 or known[saved.history[1]] then return {'kept'} end
-- As many changes may have followed as are kept: then all that are left are newer.
if #history >= MAX_HISTORY
  and cjson.decode(history[#history]).epoch > cjson.decode(saved.history[1]).epoch then
  return {'kept'}
end

local function larger(a, b) return string.format('%.0f', math.max(tonumber(a) or 0, b)) end

redis.call('SET', FENCE, larger(redis.call('GET', FENCE), saved.fence + JUMP))

-- Versions, in their order and before those that came since; only those whose bytes are there.
local since = redis.call('LRANGE', ORDER, 0, -1)
redis.call('DEL', ORDER)
local placed = {}
for _, versions in ipairs({saved.order, since}) do
  for _, version in ipairs(versions) do
    if is_stored(version) and not placed[version] then
      placed[version] = true
      redis.call('RPUSH', ORDER, version)
    end
  end
end
for _, version in ipairs(saved.tripped) do
  if is_stored(version) then redis.call('SADD', TRIPPED, version) end
end
local on_trail = {}
for _, version in ipairs(redis.call('LRANGE', TRAIL, 0, -1)) do on_trail[version] = true end
for _, version in ipairs(saved.trail) do
  if is_stored(version) and not on_trail[version] then redis.call('RPUSH', TRAIL, version) end
end
for version, audits in pairs(saved.audits) do
  local key = OUTCOMES .. ':' .. version
  if is_stored(version) and #audits.outcomes > redis.call('STRLEN', key) then
    redis.call('SET', key, audits.outcomes)
    local marks = MARKS .. ':' .. version
    for partition, offset in pairs(audits.marks) do
      redis.call('HSET', marks, partition, larger(redis.call('HGET', marks, partition), offset))
    end
  end
end
for _, entry in ipairs(saved.history) do
  if not known[entry] then redis.call('RPUSH', HISTORY, entry) end
end

-- Windows are dates, with which versions begin.
local current, before = pointer('version'), saved.active.version
if before == '' then before = nil end
local newer = current and not is_tripped(current)
  and (not before or string.sub(current, 1, 10) > string.sub(before, 1, 10))

-- Whichever says less of the version that comes back: what was saved, or what befell it since.
local SILENCE = {serving = 0, probation = 1, paused = 2, tripped = 3}
local function state_of(version)
  if is_tripped(version) then return 'tripped' end
  local state, now = saved.active.state or 'serving', pointer('state') or 'serving'
  if version == current and (SILENCE[now] or 0) > (SILENCE[state] or 0) then return now end
  return state
end

local epoch = larger(pointer('epoch'), (tonumber(saved.active.epoch) or 0) + JUMP)
redis.call('HSET', ACTIVE, 'epoch', epoch)
if newer then
  record('published', current)
  if before and is_stored(before) and before ~= current then
    redis.call('LREM', TRAIL, 0, before)
    redis.call('LPUSH', TRAIL, before)
  end
else
  local back = before and is_stored(before) and before or nil
  local state = back and state_of(back) or 'serving'
  record(not back and 'retired' or state == 'serving' and 'published' or state, back)
  redis.call('LREM', TRAIL, 0, back or '')
  redis.call('HSET', ACTIVE, 'version', back or '', 'state', state)
  end_trial()
  local trial = saved.active.trial
  if trial and trial ~= '' and is_stored(trial) and not is_tripped(trial) then
    redis.call('HSET', ACTIVE, 'trial', trial, 'mode', saved.active.mode,
      'share', saved.active.share)
  end
end
if saved.active.alpha and not pointer('alpha') then
  redis.call('HSET', ACTIVE, 'alpha', saved.active.alpha)
end
return {'ok', unpack(redis.call('HMGET', ACTIVE, ACTIVE_FIELDS))}
""".replace("ACTIVE_FIELDS", ", ".join(f"'{name}'" for name in ACTIVE_FIELDS))
)
