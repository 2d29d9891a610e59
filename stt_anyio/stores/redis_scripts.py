"""What is done in Redis: scripts in its Lua, each of which is one step that nobody comes between.

A store is five keys of Redis with one hash tag, so that they lie in one slot of a cluster. A *place* is the namespace,
as 32 bytes of SHA-256, with the key behind it.

* `entries`, a hash: place -> `version expires value`, separated by one space each; `expires` may be `inf`;
* `places`, a sorted set without scores: the places that have an entry, in the order of their bytes;
* `expiry`, a sorted set: these places, by when they expire;
* `taken`, a sorted set: the places that were taken once, by when that is over;
* `state`, a hash: `format`; `id`, random, drawn by who wrote first; `versions`, how many changes there were; `entries`
  and `taken`, how many there should be;
  `expired`, the last end of a lifetime that any call has seen pass. What ends by then has ended, whatever the server's
  clock says afterwards.

None of the five has a time to live in Redis, so that only an `allkeys-` policy of eviction takes them away; that one of
them is gone shows by the counts, and that all are, to those who know the `id` and how many changes there were.

Each answer is `done`, the number of changes and the `id`, and what was asked for; or why not, and a number.
"""

from __future__ import annotations

from hashlib import sha1

from attrs import field, frozen

FORMAT = "1"
MOST = 1 << 52
"""Changes beyond which a store is damaged: whole numbers of Lua are exact up to twice as many."""
PURGED = 16
"""Lifetimes that are over and that one call removes, at most, so that none takes long."""
PAGE_BYTES = 1 << 20
"""Bytes of entries behind which one call of `SCAN` gives no more; many times the largest entry."""

_BEGIN = (
    """
local entries, places, expiry, taken, state = unpack(KEYS)
local seen, known, fresh = string.match(ARGV[1], '^(%d+) (%x*) (%x+)$')
local place = ARGV[2]

local held = redis.call('HMGET', state, 'format', 'versions', 'entries', 'taken', 'expired', 'id')
local format, versions = held[1] or '@FORMAT@', tonumber(held[2] or '0')
local sizes = {entries = tonumber(held[3] or '0'), taken = tonumber(held[4] or '0')}
local expired, id = tonumber(held[5] or '0'), held[6] or fresh
local before = versions

local function text(number) return string.format('%.17g', number) end

if format ~= '@FORMAT@' then return {'format', format} end
if redis.call('HLEN', entries) ~= sizes.entries or redis.call('ZCARD', places) ~= sizes.entries or
  redis.call('ZCARD', expiry) ~= sizes.entries or redis.call('ZCARD', taken) ~= sizes.taken or
  not (versions >= 0 and versions <= @MOST@ and expired < math.huge) then
  return {'damaged', '0'}
end
if known ~= '' and known ~= id then return {'anew', '0'} end
if versions < tonumber(seen) then return {'lost', text(versions)} end

local clock = redis.call('TIME')
local now = math.max(clock[1] + clock[2] / 1000000, expired)
for _, set in ipairs({expiry, taken}) do
  local last = redis.call('ZREVRANGEBYSCORE', set, text(now), '-inf', 'WITHSCORES', 'LIMIT', 0, 1)
  if last[2] and tonumber(last[2]) > expired then expired = tonumber(last[2]) end
end

local function changed(table, by)
  versions = versions + 1
  sizes[table] = sizes[table] + by
end

local function remove(what)
  redis.call('HDEL', entries, what)
  redis.call('ZREM', places, what)
  redis.call('ZREM', expiry, what)
  changed('entries', -1)
end

for _, what in ipairs(redis.call('ZRANGEBYSCORE', expiry, '-inf', text(expired), 'LIMIT', 0, @PURGED@)) do
  remove(what)
end
for _, what in ipairs(redis.call('ZRANGEBYSCORE', taken, '-inf', text(expired), 'LIMIT', 0, @PURGED@)) do
  redis.call('ZREM', taken, what)
  changed('taken', -1)
end

local function find()
  local entry = redis.call('HGET', entries, place)
  if not entry then return false, 0 end
  local version, expires = string.match(entry, '^(%d+) (%S+) ')
  if expires == 'inf' or tonumber(expires) > expired then return entry, tonumber(version) end
  remove(place)
  return false, 0
end

local function answer(...)
  if versions ~= before then
    redis.call('HSET', state, 'format', '@FORMAT@', 'versions', text(versions), 'entries', sizes.entries,
      'taken', sizes.taken, 'expired', text(expired), 'id', id)
  end
  return {...}
end

local function done(...)
  local told = versions > 0 and text(versions) .. ' ' .. id or '0'
  return answer('done', told, text(now), ...)
end
"""
).replace("@FORMAT@", FORMAT).replace("@PURGED@", str(PURGED)).replace("@MOST@", str(MOST))  # fmt: skip


@frozen
class Script:
    """One script.

    Attributes:
        body: its text.
        name: what Redis calls it, once it has seen it: SHA-1 of the text, in hexadecimal.
    """

    body: bytes = field(repr=False)
    name: bytes

    @classmethod
    def of(cls, body: str) -> Script:
        """A script behind what all have in common."""
        whole = (_BEGIN + body).encode()
        return cls(whole, sha1(whole, usedforsecurity=False).hexdigest().encode())


KEYS = ("entries", "places", "expiry", "taken", "state")
"""What the names of the five end with, in the order in which scripts take them."""

GET = Script.of("return done((find()))")

# ARGV: value, the version that must be there, the lifetime or `inf`, how many entries there may be
PUT = Script.of(
    """
local value, wanted, ttl, limit = ARGV[3], tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6])
local found, version = find()
if version ~= wanted then return answer('conflict', text(version)) end
if not found and sizes.entries >= limit then return answer('full', ARGV[6]) end
local expires = ttl
if ttl ~= 'inf' then expires = text(now + ttl) end
changed('entries', found and 0 or 1)
redis.call('HSET', entries, place, text(versions) .. ' ' .. expires .. ' ' .. value)
redis.call('ZADD', places, 0, place)
redis.call('ZADD', expiry, expires, place)
return done()
"""
)

# ARGV: the lifetime, how many may be remembered
TAKE_ONCE = Script.of(
    """
local ttl, limit = tonumber(ARGV[3]), tonumber(ARGV[4])
local expires = redis.call('ZSCORE', taken, place)
if expires and tonumber(expires) > expired then return done(false) end
if not expires then
  if sizes.taken >= limit then return answer('full', ARGV[4]) end
  changed('taken', 1)
else
  changed('taken', 0)
end
redis.call('ZADD', taken, text(now + ttl), place)
return done('1')
"""
)

# ARGV: the version that must be there, or nothing
DELETE = Script.of(
    """
local found, version = find()
if ARGV[3] ~= '' and version ~= tonumber(ARGV[3]) then return answer('conflict', text(version)) end
if not found then return done(false) end
remove(place)
return done('1')
"""
)

# ARGV: the first place that is too far, how many entries at most. Gives whether there may be more; places and entries,
# in turn.
SCAN = Script.of(
    """
local page, bytes = {}, 0
local found = redis.call('ZRANGEBYLEX', places, '(' .. place, '(' .. ARGV[3], 'LIMIT', 0, ARGV[4])
for _, what in ipairs(found) do
  local entry = redis.call('HGET', entries, what)
  bytes = bytes + #entry
  if bytes > @PAGE@ then break end
  page[#page + 1] = what
  page[#page + 1] = entry
end
return done(text(expired), #page < 2 * #found or #found == tonumber(ARGV[4]), page)
""".replace("@PAGE@", str(PAGE_BYTES))
)
