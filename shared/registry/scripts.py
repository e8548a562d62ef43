"""The Lua scripts that change a task in Redis, each atomic, and the keys they work on.

A call carries an id that is kept in the history entry it makes, so that a script sent again after
a lost reply finds its own entry and changes nothing twice.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass

from shared.registry.checks import checked_task

CHANNEL = "tracer:changes"
MAX_HISTORY = 1000
# Fields of the hash `active`, in the order in which the registry reads them.
ACTIVE_FIELDS = ("version", "epoch", "state", "trial", "mode", "share", "alpha")


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one task. The braces are a hash tag: a cluster keeps them on one slot."""

    fence: str  # integer: the newest fence
    active: str  # hash of ACTIVE_FIELDS: version ("" when none); trial, mode, share of a trial
    order: str  # list: stored versions, oldest first
    manifests: str  # hash: version -> manifest bytes
    files: str  # hash: version -> SHA-256s of its blobs, separated by spaces
    blobs: str  # hash: version/SHA-256 -> blob bytes
    history: str  # list: JSON entries, newest first
    trail: str  # list: versions active before the current one, newest first
    tripped: str  # set: stored versions that answer no more
    # These two begin the keys of each version's audits; see below.
    outcomes: str  # string: '1' agreed, '0' did not, in the order of recording
    marks: str  # hash: partition -> highest offset recorded
    signatures: str  # hash: version -> its manifest's signature
    reports: str  # hash: version or key of an unpublished fit -> JSON of its report
    unpublished: str  # list: keys of reports of unpublished fits, oldest put first

    @classmethod
    def of(cls, task: str) -> Keys:
        """Raises ValueError when `task` is not a task name."""
        prefix = f"tracer:{{{checked_task(task)}}}:"
        return cls(*(prefix + name for name in cls.__slots__))

    @staticmethod
    def last_fit_of(task: str) -> str:
        """String: a JSON FitNote, which no script touches."""
        return f"tracer:{{{checked_task(task)}}}:last_fit"

    def outcomes_of(self, version: str) -> str:
        return f"{self.outcomes}:{version}"

    def marks_of(self, version: str) -> str:
        return f"{self.marks}:{version}"

    def all(self) -> list[str]:
        """In the order in which the scripts expect them."""
        return list(astuple(self))


# ARGV of every script that makes a change: channel, task, call id, time, reason, who ("" for a
# service); then its own.
COMMON = f"""
local FENCE, ACTIVE, ORDER, MANIFESTS, FILES, BLOBS, HISTORY, TRAIL = unpack(KEYS, 1, 8)
local TRIPPED, OUTCOMES, MARKS, SIGNATURES, REPORTS = unpack(KEYS, 9, 13)
local CHANNEL, TASK, CALL, AT, REASON, ACTOR = unpack(ARGV, 1, 6)

local function pointer(name)
  local value = redis.call('HGET', ACTIVE, name)
  if value == '' then return false end
  return value
end

local function is_stored(version)
  return redis.call('HEXISTS', MANIFESTS, version) == 1
end

local function is_tripped(version)
  return redis.call('SISMEMBER', TRIPPED, version) == 1
end

local function newest_entry()
  return redis.call('LINDEX', HISTORY, 0)
end

-- The epoch, if it is not the expected one ("" for any).
local function another_epoch(expected)
  local now = redis.call('HGET', ACTIVE, 'epoch') or '0'
  return expected ~= '' and expected ~= now and now
end

local function done_before()
  local newest = newest_entry()
  return newest and cjson.decode(newest).call == CALL and newest
end

-- The version a rollback would return to.
local function spare()
  for _, version in ipairs(redis.call('LRANGE', TRAIL, 0, -1)) do
    if not is_tripped(version) then return version end
  end
  return false
end

-- Count a change and write it down; before the active version changes, if it does.
local function record(kind, version, alpha)
  local epoch = redis.call('HINCRBY', ACTIVE, 'epoch', 1)
  local entry = cjson.encode({{
    kind = kind, version = version or cjson.null, previous = pointer('version') or cjson.null,
    epoch = epoch, at = AT, reason = REASON, call = CALL,
    actor = ACTOR ~= '' and ACTOR or cjson.null, alpha = alpha or cjson.null}})
  redis.call('LPUSH', HISTORY, entry)
  redis.call('LTRIM', HISTORY, 0, {MAX_HISTORY - 1})
  redis.call('PUBLISH', CHANNEL, TASK)
  return entry
end

local function activate(kind, version)
  local entry = record(kind, version)
  redis.call('HSET', ACTIVE, 'version', version or '', 'state', 'serving')
  return entry
end

local function end_trial()
  redis.call('HDEL', ACTIVE, 'trial', 'mode', 'share')
end

-- Activate a version that a rollback takes back; a trial ends.
local function supersede(kind, version)
  local previous = pointer('version')
  redis.call('LREM', TRAIL, 0, version)
  if previous then redis.call('LPUSH', TRAIL, previous) end
  end_trial()
  return activate(kind, version)
end
"""

# ARGV: fence, version, versions to keep, mode ("" to activate) and share of a trial, manifest,
# its signature ("" for none), then SHA-256 and bytes of each blob.
PUBLISH = (
    COMMON
    + """
local fence, version, keep, mode, share, manifest, signature = unpack(ARGV, 7, 13)

local function store()
  if not is_stored(version) then
    redis.call('RPUSH', ORDER, version)
  end
  redis.call('HSET', MANIFESTS, version, manifest)
  if signature == '' then
    redis.call('HDEL', SIGNATURES, version)
  else
    redis.call('HSET', SIGNATURES, version, signature)
  end
  local names = {}
  for i = 14, #ARGV, 2 do
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
  redis.call('HDEL', SIGNATURES, old)
  redis.call('HDEL', REPORTS, old)
  redis.call('LREM', ORDER, 0, old)
  redis.call('LREM', TRAIL, 0, old)
  redis.call('SREM', TRIPPED, old)
  redis.call('DEL', OUTCOMES .. ':' .. old, MARKS .. ':' .. old)
end

-- Delete the oldest versions beyond `keep`, but none in use or in reserve.
local function prune()
  local active, trial, reserve = pointer('version'), pointer('trial'), spare()
  local excess = redis.call('LLEN', ORDER) - tonumber(keep)
  for _, old in ipairs(redis.call('LRANGE', ORDER, 0, -1)) do
    if excess <= 0 then break end
    if old ~= active and old ~= trial and old ~= reserve then
      delete(old)
      excess = excess - 1
    end
  end
end

local function is_on_trial()
  local trial = redis.call('HMGET', ACTIVE, 'trial', 'mode', 'share')
  return trial[1] == version and trial[2] == mode and trial[3] == share
end

local newest = redis.call('GET', FENCE) or '0'
if newest ~= fence then return {'stale', newest} end
if mode ~= '' and is_tripped(version) then return {'tripped'} end
store()
if version ~= pointer('version') then
  if mode == '' and not is_tripped(version) then
    supersede('published', version)
    prune()
  elseif mode ~= '' and not is_on_trial() then
    record(mode, version)
    redis.call('HSET', ACTIVE, 'trial', version, 'mode', mode, 'share', share)
    prune()
  end
end
return {'ok', unpack(redis.call('HMGET', ACTIVE, ACTIVE_FIELDS))}
""".replace("ACTIVE_FIELDS", ", ".join(f"'{name}'" for name in ACTIVE_FIELDS))
)

# ARGV: promoted or withdrawn, the version that must be on trial, the epoch that must be; "": any.
END_TRIAL = (
    COMMON
    + """
local kind, expected, epoch = unpack(ARGV, 7, 9)
local mine = done_before()
if mine then return {'ok', mine} end
local trial = pointer('trial')
if not trial or (expected ~= '' and expected ~= trial) then return {'unknown'} end
local now = another_epoch(epoch)
if now then return {'changed', now} end
if kind == 'promoted' then return {'ok', supersede(kind, trial)} end
-- By evidence: what tripped on trial does not answer later either.
if ACTOR == '' then redis.call('SADD', TRIPPED, trial) end
end_trial()
return {'ok', record(kind, trial)}
"""
)

# ARGV: the version to return to, or "" for the one before.
ROLLBACK = (
    COMMON
    + """
local target = ARGV[7]
local mine = done_before()
if mine then return {'ok', mine} end
local previous = pointer('version')
if target == '' then
  target = spare()
  if not target then return {'unknown'} end
elseif not is_stored(target) then
  return {'unknown'}
elseif is_tripped(target) then
  return {'tripped'}
elseif target == previous then
  return {'ok', newest_entry()}
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
if pointer('trial') == target then end_trial() end
return {'ok', activate('rolled_back', target)}
"""
)

# ARGV: the version that must be active, or "" for any.
RETIRE = (
    COMMON
    + """
local expected = ARGV[7]
local mine = done_before()
if mine then return {'ok', mine} end
local active = pointer('version')
if not active or (expected ~= '' and expected ~= active) then return {'unknown'} end
end_trial()
return {'ok', activate('retired', false)}
"""
)

# ARGV: version, the state to be in, the state it must be in now, or "" for any.
SET_STATE = (
    COMMON
    + """
local version, wanted, was = unpack(ARGV, 7, 9)
local mine = done_before()
if mine then return {'ok', mine} end
if pointer('version') ~= version then return {'unknown'} end
local now = pointer('state') or 'serving'
if now == wanted then return {'ok', newest_entry()} end
if now == 'tripped' then return {'tripped'} end
if was ~= '' and was ~= now then return {'changed', now} end
local kind = wanted
if wanted == 'serving' then kind = now == 'paused' and 'resumed' or 'cleared' end
if wanted == 'tripped' then redis.call('SADD', TRIPPED, version) end
local entry = record(kind, version)
redis.call('HSET', ACTIVE, 'state', wanted)
return {'ok', entry}
"""
)

# ARGV: alpha, or "" for the tasks file's; the epoch the pointer must have, or "" for any.
SET_ALPHA = (
    COMMON
    + """
local alpha, epoch = unpack(ARGV, 7, 8)
local mine = done_before()
if mine then return {'ok', mine} end
local now = another_epoch(epoch)
if now then return {'changed', now} end
if (pointer('alpha') or '') == alpha then return {'same'} end
local entry = record('alpha', pointer('version'), tonumber(alpha))
redis.call('HSET', ACTIVE, 'alpha', alpha)
return {'ok', entry}
"""
)

# Not a change. ARGV: version, partition, outcomes as one string of '0' and '1', their offsets.
RECORD_AUDITS = """
local MANIFESTS, OUTCOMES, MARKS = KEYS[4], KEYS[10] .. ':' .. ARGV[1], KEYS[11] .. ':' .. ARGV[1]
local version, partition, outcomes = unpack(ARGV, 1, 3)
if redis.call('HEXISTS', MANIFESTS, version) == 0 then return 0 end
local mark = tonumber(redis.call('HGET', MARKS, partition) or '-1')
local first = 4
while first <= #ARGV and tonumber(ARGV[first]) <= mark do first = first + 1 end
if first <= #ARGV then
  redis.call('APPEND', OUTCOMES, string.sub(outcomes, first - 3))
  redis.call('HSET', MARKS, partition, ARGV[#ARGV])
end
return redis.call('STRLEN', OUTCOMES)
"""

# Not a change. ARGV: version, or "" for an unpublished fit, the report's key and bytes, how many of
# unpublished fits to keep.
PUT_REPORT = """
local MANIFESTS, REPORTS, UNPUBLISHED = KEYS[4], KEYS[13], KEYS[14]
local version, key, report, keep = unpack(ARGV, 1, 4)
if version ~= '' then
  if redis.call('HEXISTS', MANIFESTS, version) == 0 then return 0 end
else
  redis.call('LREM', UNPUBLISHED, 0, key)
  redis.call('RPUSH', UNPUBLISHED, key)
  while redis.call('LLEN', UNPUBLISHED) > tonumber(keep) do
    redis.call('HDEL', REPORTS, redis.call('LPOP', UNPUBLISHED))
  end
end
redis.call('HSET', REPORTS, key, report)
return 1
"""
