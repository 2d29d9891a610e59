"""A store in Redis or Valkey: for the processes of many machines. Needs the extra `stt-transport[redis]`."""

from __future__ import annotations

import logging
import os
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from math import inf
from types import TracebackType
from typing import Any

import anyio
import coredis.exceptions as refusals
from anyio import CancelScope, Lock, Semaphore, aclose_forcefully
from anyio.abc import ByteStream, TaskGroup, TaskStatus
from anyio.lowlevel import checkpoint
from coredis.connection import BaseConnection, Location, TCPLocation, UnixDomainSocketLocation
from coredis.pool import ConnectionPool

from stt_anyio.errors import (
    ArgumentError,
    ResourcesExhaustedError,
    StateError,
    StoreDamagedError,
    StoreUnavailableError,
    SttError,
    VersionConflictError,
)
from stt_anyio.stores.redis_scripts import DELETE, FORMAT, GET, KEYS, PUT, SCAN, TAKE_ONCE, Script
from stt_proto.manager.checks import MAX_SECONDS, MIN_SECONDS, check_number, check_whole
from stt_proto.manager.namespaces import Namespace, namespace_key
from stt_proto.manager.store import StoredEntry, check_key, check_page, check_ttl, check_value, check_version

logger = logging.getLogger("stt.store")

MAX_WAITING = 64
"""Calls that Redis has not answered yet; further ones wait."""

_OPTIONS = ("username", "password", "db", "client_name")
"""What an address may say of a connection."""

_PREFIX = re.compile(r"[A-Za-z0-9._-]{1,64}")
_IN_SCRIPT = re.compile(r"(?:ERR )?Error running script.*?(?:: -([A-Z]+) |$)", re.DOTALL)
"""What Redis 6.2 writes around the error of a command in a script, or of the script itself."""


class RedisSessionStore:
    """A `SessionStore` in a server that many machines ask: Redis 6.2 or newer, or Valkey.

    Each call is one script, which Redis runs as one step; time is the server's clock, so those of the machines do not
    matter. Calls share one connection, in the order in which they are made, up to 64 at once. None is repeated by
    itself, since it may have been done. One that has begun is not cancelled, so that the caller learns what became of
    it; it fails when its answer is not there after `timeout`. A connection that broke is made anew by the next call.

    What a server forgets, which it may when it fails without having written or replicated everything, is noticed: each
    change is counted, and this store refuses a server that knows of fewer than it told, or that began anew
    (`StoreDamagedError`), from then on. Open it anew to accept the loss.

    It is used as `async with RedisSessionStore(url) as store:`, since what reads from the connection runs within.

    Args:
        url: `redis://[user:password@]host[:port][/database]`, `rediss://` over TLS, or
            `unix://[user:password@]/path[?db=database]`.
        prefix: what the names of its keys in Redis begin with; 1 to 64 of letters, digits, `.`, `_` and `-`.
            Stores with different prefixes do not know each other.
        timeout: seconds that a call may take.
        max_entries: entries in the store.
        max_taken: keys of `take_once` in the store.
        ssl_context: for `rediss://`; without one, the server's certificate must be good for its name.

    Raises:
        ArgumentError: an argument is out of its range.
    """

    def __init__(
        self,
        url: str,
        *,
        prefix: str = "stt",
        timeout: float = 2.0,
        max_entries: int = 1 << 20,
        max_taken: int = 1 << 20,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        check_number("timeout", timeout, 0.001, 60.0)
        check_whole("max_entries", max_entries, 1, 1 << 32)
        check_whole("max_taken", max_taken, 1, 1 << 32)
        if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
            raise ArgumentError(f"prefix is {prefix!r}; it must be 1 to 64 of a-z A-Z 0-9 . _ -", argument="prefix")
        self._location, self._options = _parts(url, ssl_context)
        self._url = url
        self._given: dict[str, Any] = {
            "prefix": prefix,
            "timeout": timeout,
            "max_entries": max_entries,
            "max_taken": max_taken,
            "ssl_context": ssl_context,
        }
        self._keys = tuple(f"{{{prefix}}}:{name}".encode() for name in KEYS)
        self._timeout = timeout
        self._max_entries, self._max_taken = b"%d" % max_entries, b"%d" % max_taken
        self._room = Semaphore(MAX_WAITING)
        self._connecting = Lock()
        self._connection: BaseConnection | None = None
        self._tasks: TaskGroup | None = None
        self._seen = 0  # the most changes that the server has told of
        self._known = b""  # what it calls the store
        self._fresh = os.urandom(8).hex().encode()  # what it would call one that begins with a write of ours
        self._lost = ""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        """Its address, with the password that is in it: what comes out of a pickle is the same store, not open."""
        return partial(type(self), **self._given), (self._url,)

    async def __aenter__(self) -> RedisSessionStore:
        if self._tasks is not None:
            raise StateError("the store is open")
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._seen, self._known, self._lost = 0, b"", ""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        tasks, self._tasks = self._tasks, None
        self._drop(self._connection)
        if tasks is not None:
            tasks.cancel_scope.shield = True  # a cancellation would stand in the place of what the caller raises
            tasks.cancel_scope.cancel()
            await tasks.__aexit__(None, None, None)  # which is his, and stays no group

    async def aclose(self) -> None:
        """Let go of the connection; what was written stays in the server. A later call would connect again."""
        self._drop(self._connection)
        await checkpoint()

    async def get(self, namespace: Namespace, key: bytes) -> StoredEntry | None:
        """What is there, if anything."""
        check_key(key)
        answer = await self._ask(GET, _place(namespace, key))
        with _making_sense():
            _, now, entry = answer
            return None if entry is None else _entry(key, entry, float(now))[0]

    async def put(
        self, namespace: Namespace, key: bytes, value: bytes, *, if_version: int, ttl: float | None = None
    ) -> int:
        """Write, if the entry still has this version (0: if there is none); give the new version."""
        check_key(key)
        check_value(value)
        check_version(if_version)
        check_ttl(ttl)
        lifetime = b"inf" if ttl is None else _number(ttl)
        place = _place(namespace, key)
        answer = await self._ask(PUT, place, value, b"%d" % if_version, lifetime, self._max_entries)
        with _making_sense():
            versions, _ = answer
            return int(versions.partition(b" ")[0])

    async def take_once(self, namespace: Namespace, key: bytes, *, ttl: float) -> bool:
        """Take a key that nobody has taken: True once, then False, for `ttl` seconds."""
        check_key(key)
        check_number("ttl", ttl, MIN_SECONDS, MAX_SECONDS)
        return _flag(await self._ask(TAKE_ONCE, _place(namespace, key), _number(ttl), self._max_taken))

    async def delete(self, namespace: Namespace, key: bytes, *, if_version: int | None = None) -> bool:
        """Delete an entry; False when there was none."""
        check_key(key)
        if if_version is not None:
            check_version(if_version)
        wanted = b"" if if_version is None else b"%d" % if_version
        return _flag(await self._ask(DELETE, _place(namespace, key), wanted))

    async def scan(self, namespace: Namespace, *, after: bytes = b"", limit: int = 100) -> tuple[StoredEntry, ...]:
        """The entries behind the key `after`, in the order of their keys, at most `limit`."""
        check_page(after, limit)
        first = _place(namespace, b"")
        end = (int.from_bytes(first, "big") + 1).to_bytes(len(first), "big")
        found: list[StoredEntry] = []
        while len(found) < limit:
            answer = await self._ask(SCAN, first + after, end, b"%d" % (limit - len(found)))
            with _making_sense():
                _, now, expired, more, page = answer
                for place, entry in zip(page[::2], page[1::2], strict=True):
                    if place <= first + after:
                        raise ValueError("keys are out of order")
                    after = place[len(first) :]
                    stored, expires = _entry(after, entry, float(now))
                    if expires > float(expired):
                        found.append(stored)
                if more is None or not page:
                    break
        return tuple(found)

    # -- asking ----------------------------------------------------------------------------------------------------

    async def _ask(self, script: Script, place: bytes, *arguments: bytes) -> list[Any]:
        """Run a script; what it answers behind `done`.

        The wait for a turn can be cancelled; what follows cannot, and has an end: a script may have run, and its
        answer is what the caller came for.
        """
        if self._tasks is None:
            raise StateError("the store is not open")
        if self._lost:
            raise StoreDamagedError(self._lost)
        deadline = anyio.current_time() + self._timeout
        waited = True
        with CancelScope(deadline=deadline):
            await self._room.acquire()
            waited = False
        if waited:
            raise StoreUnavailableError(f"{MAX_WAITING} calls wait for Redis, and none was answered; nothing was asked")
        answer: object = None
        try:
            with CancelScope(deadline=deadline, shield=True) as scope:
                answer = await self._exchange(self._tasks, script, place, *arguments)
        except SttError:
            raise
        except refusals.ResponseError as error:
            raise _refusal(error) from error
        except Exception as error:  # a connection fails in many ways, and the library adds its own
            raise StoreUnavailableError(f"Redis cannot be reached: {error}") from error
        finally:
            self._room.release()
        if scope.cancelled_caught:
            raise StoreUnavailableError(f"Redis did not answer within {self._timeout:g} s")
        with _making_sense():
            return self._understand(answer)

    async def _exchange(self, tasks: TaskGroup, script: Script, place: bytes, *arguments: bytes) -> object:
        """Ask. A connection on which anything went wrong but the answer is given up, with all that wait on it."""
        connection = await self._connected(tasks)
        memory = b"%d %b %b" % (self._seen, self._known, self._fresh)
        rest = (b"%d" % len(self._keys), *self._keys, memory, place, *arguments)
        try:
            try:
                return await connection.create_request(b"EVALSHA", script.name, *rest, decode=False)
            except refusals.NoScriptError:  # it never saw it, or was restarted
                return await connection.create_request(b"EVAL", script.body, *rest, decode=False)
        except refusals.ResponseError as error:
            if _code(error) == "READONLY":  # another is the primary now; whoever told us where it is may know
                self._drop(connection)
            raise
        except BaseException:
            self._drop(connection)
            raise

    def _understand(self, answer: Any) -> list[Any]:
        match answer:
            case [b"done", versions, *rest]:
                number, _, name = versions.partition(b" ")
                self._seen = max(self._seen, int(number))
                self._known = self._known or name
                return [versions, *rest]
            case [b"conflict", version]:
                raise _conflict(int(version))
            case [b"full", limit]:
                raise ResourcesExhaustedError(f"the store holds {int(limit):,} of these")
            case [b"lost", versions]:
                self._lost = (
                    f"Redis lost what it had: it tells of {int(versions)} changes, and told of {self._seen};"
                    " open the store anew to accept that"
                )
                raise StoreDamagedError(self._lost)
            case [b"anew", _]:
                self._lost = "Redis lost what it had, and began anew; open the store anew to accept that"
                raise StoreDamagedError(self._lost)
            case [b"format", name]:
                raise StoreDamagedError(
                    f"the store in Redis has format {name!r}, and this version knows {FORMAT} alone"
                )
            case [b"damaged", _]:
                raise StoreDamagedError("parts of the store in Redis are gone: evicted, deleted, or overwritten")
            case _:
                raise StoreDamagedError("Redis gave an answer that makes no sense")

    # -- the connection --------------------------------------------------------------------------------------------

    async def _connected(self, tasks: TaskGroup) -> BaseConnection:
        """The connection; a fresh one when there is none that works."""
        async with self._connecting:
            connection = self._connection
            if connection is None or not connection.usable:
                self._drop(connection)
                stream = await _connect(self._location, self._options)
                try:
                    connection = await tasks.start(_serve, stream, self._location, self._options)
                except BaseException:
                    await aclose_forcefully(stream)  # which nobody may have begun to read
                    raise
                self._connection = connection
            return connection

    def _drop(self, connection: BaseConnection | None) -> None:
        if connection is not None:
            connection.invalidate()
            if self._connection is connection:
                self._connection = None


class _Started:
    """Passes on which connection stands, and remembers it."""

    __slots__ = ("_connection", "_status", "passed")

    def __init__(self, status: TaskStatus[BaseConnection], connection: BaseConnection) -> None:
        self._status = status
        self._connection = connection
        self.passed = False

    def started(self, value: None = None) -> None:
        self.passed = True
        self._status.started(self._connection)


async def _serve(
    stream: ByteStream, location: Location, options: Mapping[str, Any], *, task_status: TaskStatus[BaseConnection]
) -> None:
    """Make a connection, and read what comes on it until it ends. That it cannot be made is raised to who wants it."""
    connection = _Connection(stream, location, **options)
    status = _Started(task_status, connection)
    try:
        await connection.run(task_status=status)
    except Exception as error:
        if not status.passed:
            raise
        logger.info("the connection to Redis ended: %s", error)


class _Connection(BaseConnection):
    """The library's protocol on a stream that is connected already.

    Connections that cannot be made leave what they are made of unclosed (coredis 6.9), so none is begun without one.
    """

    def __init__(self, stream: ByteStream, location: Location, **options: Any) -> None:
        super().__init__(location, **options)
        self._connected_stream = stream

    async def _connect(self) -> ByteStream:
        return self._connected_stream

    def describe(self) -> str:
        return f"{type(self).__name__}<{self.location}>"


async def _connect(location: Location, options: Mapping[str, Any]) -> ByteStream:
    """Connect; the handshake comes later."""
    context = options.get("ssl_context")
    if isinstance(location, UnixDomainSocketLocation):
        return await anyio.connect_unix(location.path)
    assert isinstance(location, TCPLocation)
    if context is None:
        return await anyio.connect_tcp(location.host, location.port)
    return await anyio.connect_tcp(
        location.host, location.port, ssl_context=context, tls_hostname=location.host, tls_standard_compatible=False
    )


def _parts(url: str, context: ssl.SSLContext | None) -> tuple[Location, dict[str, Any]]:
    """Where a URL leads, and what a connection there is given.

    No more than that is taken from the library's pool: a connection of it that dies while a command waits for it, or a
    wait for a connection that is cancelled, costs it a place for good (coredis 6.9). One connection will do, since a
    server answers in turn anyway.
    """
    if not isinstance(url, str) or not url.startswith(("redis://", "rediss://", "unix://")):
        raise ArgumentError("url must begin with redis://, rediss:// or unix://", argument="url")
    if url.startswith("rediss://") and context is None:
        context = ssl.create_default_context()  # the library's own leaves out whose certificate it is
    try:
        pool: ConnectionPool[Any] = ConnectionPool.from_url(url, decode_components=True, ssl_context=context)
    except Exception as error:
        raise ArgumentError(f"url is none of Redis: {type(error).__name__}", argument="url") from None
    if not isinstance(pool.location, TCPLocation | UnixDomainSocketLocation):
        raise ArgumentError("url names no host", argument="url")
    options: dict[str, Any] = {**pool.connection_kwargs}
    ours: dict[str, Any] = {name: options[name] for name in _OPTIONS if name in options}
    return pool.location, {**ours, "ssl_context": context if url.startswith("rediss://") else None}


# -- bytes ---------------------------------------------------------------------------------------------------------


def _place(namespace: Namespace, key: bytes) -> bytes:
    return bytes.fromhex(namespace_key(namespace)) + key


def _number(seconds: float) -> bytes:
    return repr(float(seconds)).encode()


@contextmanager
def _making_sense() -> Iterator[None]:
    """What answers may be anything."""
    try:
        yield
    except SttError:
        raise
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise StoreDamagedError(f"Redis gave an answer that makes no sense: {error}") from error


def _flag(answer: list[Any]) -> bool:
    with _making_sense():
        _, _, flag = answer
        return flag is not None


def _entry(key: bytes, entry: bytes, now: float) -> tuple[StoredEntry, float]:
    """An entry as it lies there, and when it expires."""
    version, expires, value = entry.split(b" ", 2)
    expires_at = float(expires)
    return StoredEntry(key, value, int(version), None if expires_at == inf else expires_at - now), expires_at


def _conflict(version: int) -> VersionConflictError:
    there = f"version {version}" if version else "nothing"
    return VersionConflictError(f"another version was expected; there is {there}", version=version)


def _code(error: refusals.ResponseError) -> str:
    """Of what kind a refusal is: Redis's word for it, `SCRIPT` for an error of a script's own, or nothing known."""
    text = str(error)
    if (found := _IN_SCRIPT.match(text)) is not None:
        return found[1] or "SCRIPT"
    if isinstance(error, refusals.ReadOnlyError):
        return "READONLY"
    if isinstance(error, refusals.WrongTypeError):
        return "WRONGTYPE"
    if text.startswith("user_script:"):
        return "SCRIPT"
    return "OOM" if text.startswith("OOM ") else ""


def _refusal(error: refusals.ResponseError) -> SttError:
    """What a refusal of the server means."""
    code = _code(error)
    if code == "OOM":
        return ResourcesExhaustedError("Redis has no memory left")
    if code in ("WRONGTYPE", "SCRIPT"):
        return StoreDamagedError(f"the store in Redis is damaged: {error}")
    return StoreUnavailableError(f"Redis refused: {error}")
