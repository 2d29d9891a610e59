"""One file over one stream: offered, accepted, moved, verified by both ends, stored whole or not at all.

    sender                                   receiver
      | -- offer: size, name -------------------> |   checks the name, the place, the room
      | <------------------------ READY --------- |   or why not
      | -- content, SHA-256, end of stream -----> |   into a temporary file
      | <------------------------ STORED -------- |   once the hash agreed and the file is in its place; or why not

The sender opens a stream with the purpose `PURPOSE`. An offer is the size (8 bytes), the length of the name (2 bytes)
and the name in UTF-8. An answer is one byte (`Outcome`), the length of what follows (2 bytes), and a sentence for
people or, with STORED, the hash; the sender compares it with its own before it calls the file sent. A receiver that
fails half-way also stops the stream, so that the sender does not go on for nothing.

    sent = await send_file(session, "big.bin")

    offer = await receive_offer(await session.accept_stream())
    stored = await offer.store("inbox")

Both sides hold at most `CHUNK` bytes of the file besides what the stream buffers.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

import anyio
from anyio.streams.buffered import BufferedByteReceiveStream
from attrs import frozen

from stt_anyio.cli.outcome import Outcome, TransferError, printable
from stt_anyio.cli.storage import PartFile
from stt_anyio.errors import StreamClosedError, SttError
from stt_anyio.session import Session
from stt_anyio.stream import Stream

PURPOSE = "stt-file-1"
CHUNK = 1 << 18
"""Bytes that are read, hashed and sent at a time."""
PATIENCE = 30.0
"""Seconds that each side waits for the other to say what needs no work."""
CONTENT_PATIENCE = 150.0
"""Seconds that a receiver waits for more of a file: as long as a session over UDP by default outlives its network."""
CROWDED_PATIENCE = 10.0
"""The same where others wait for a place: a third of `PATIENCE`, so that who waits is still there to get it."""
MAX_TEXT = 1024
"""Bytes of a name or a sentence."""

_OFFER = struct.Struct("!QH")
_ANSWER = struct.Struct("!BH")
_ANSWERS = frozenset(Outcome)
_HASH_SIZE = 32

OnProgress = Callable[[int, int], None]
"""Told bytes done and bytes in all, after every chunk."""


@frozen
class Transferred:
    """A file that is whole on both sides.

    Attributes:
        name: what the sender called it.
        path: where it is on this side.
        size: in bytes.
        sha256: of its content.
    """

    name: str
    path: Path
    size: int
    sha256: bytes


# -- sending -------------------------------------------------------------------------------------------------------


async def send_file(
    session: Session, path: str | os.PathLike[str], *, name: str | None = None, on_progress: OnProgress | None = None
) -> Transferred:
    """Send a file, and return when the receiver has stored it and confirmed its hash.

    Args:
        session: one that is established.
        path: a regular file. Its size is taken once: what is appended later stays behind.
        name: what to call it there; its own name when `None`.
        on_progress: see `OnProgress`.

    Raises:
        TransferError: it could not be read, was refused, or the other side vanished.
    """
    source = Path(path)
    called = source.name if name is None else name
    raw_name = os.fsencode(called)
    if not 0 < len(raw_name) <= MAX_TEXT:
        raise TransferError(Outcome.BAD_NAME, f"a name has 1 to {MAX_TEXT} bytes, not {len(raw_name)}")
    with _opened(source) as (file, size), _peer_trouble("receiver"):
        stream = session.open_stream(purpose=PURPOSE)
        try:
            await stream.send(_OFFER.pack(size, len(raw_name)) + raw_name)
            answers = BufferedByteReceiveStream(stream)
            with anyio.fail_after(PATIENCE):
                await _receive_answer(answers, Outcome.READY)
            sha256: bytes | None
            try:
                sha256 = await _send_content(stream, file, size, on_progress)
            except StreamClosedError:
                sha256 = None  # stopped by the receiver, whose answer tells why
            if await _receive_answer(answers, Outcome.STORED) != sha256:
                raise TransferError(Outcome.DAMAGED, "the receiver stored something else: its SHA-256 differs")
        except BaseException:
            stream.reset(Outcome.CANCELLED.value)
            raise
        finally:
            await stream.aclose()
    return Transferred(called, source, size, sha256)


def check_readable(path: str | os.PathLike[str]) -> None:
    """Refuse what could not be sent, before anybody is called.

    Raises:
        TransferError: there is no such file, it may not be read, or it is no regular file.
    """
    with _opened(Path(path)):
        pass


@contextmanager
def _opened(path: Path) -> Iterator[tuple[FileIO, int]]:
    """The file, open for reading, and its size."""
    with _reading(path):
        # A named pipe would wait here for somebody to write.
        file = open(path, "rb", buffering=0, opener=_open_without_waiting)  # noqa: SIM115
    with file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise TransferError(Outcome.UNREADABLE, f"{path} is not a regular file")
        yield file, status.st_size


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


async def _send_content(stream: Stream, file: FileIO, size: int, on_progress: OnProgress | None) -> bytes:
    """Send the content and its hash, and return the hash."""
    digest, sent = hashlib.sha256(), 0
    while sent < size:
        with _reading(Path(file.name)):
            chunk = file.read(min(CHUNK, size - sent))
        if not chunk:
            raise TransferError(Outcome.UNREADABLE, f"{file.name} became shorter while it was sent")
        digest.update(chunk)
        await stream.send(chunk)
        sent += len(chunk)
        if on_progress is not None:
            on_progress(sent, size)
    await stream.send(digest.digest())
    await stream.send_eof()
    return digest.digest()


async def _receive_answer(answers: BufferedByteReceiveStream, wanted: Outcome) -> bytes:
    """The text of the answer that is hoped for; any other is raised."""
    code, length = _ANSWER.unpack(await answers.receive_exactly(_ANSWER.size))
    if code not in _ANSWERS or length > MAX_TEXT:
        raise TransferError(Outcome.MALFORMED, "the receiver speaks another language")
    text = await answers.receive_exactly(length) if length else b""
    if code != wanted:
        raise TransferError(Outcome(code), f"refused by the receiver: {printable(text.decode(errors='replace'))}")
    return text


# -- receiving -----------------------------------------------------------------------------------------------------


async def receive_offer(stream: Stream) -> Offer:
    """Hear what the peer wants to send over a stream that was accepted.

    Raises:
        TransferError: it is not about a file, not to be understood, or the peer vanished.
    """
    offer = Offer(stream)
    try:
        await offer._hear()
    except TransferError as error:
        await offer.refuse(error)
        raise
    return offer


class Offer:
    """A file that the peer offers. Call `store` or `refuse`.

    Attributes:
        name: what the peer calls it; not checked yet, and not safe to print.
        size: bytes that it has.
    """

    name = ""
    size = 0

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._received = BufferedByteReceiveStream(stream)

    async def _hear(self) -> None:
        if self._stream.purpose != PURPOSE:
            raise TransferError(Outcome.MALFORMED, "the peer opened a stream that is not about a file")
        if not self._stream.can_send:
            raise TransferError(Outcome.MALFORMED, "the peer offered a file on a one-way stream, and hears no answer")
        with _peer_trouble("sender"), anyio.fail_after(PATIENCE):
            self.size, length = _OFFER.unpack(await self._received.receive_exactly(_OFFER.size))
            if not 0 < length <= MAX_TEXT:
                raise TransferError(Outcome.BAD_NAME, f"a name has 1 to {MAX_TEXT} bytes, not {length}")
            name = await self._received.receive_exactly(length)
        try:
            self.name = name.decode()
        except UnicodeDecodeError:
            raise TransferError(Outcome.BAD_NAME, f"{name!r} is not UTF-8") from None

    async def store(
        self,
        directory: str | os.PathLike[str],
        *,
        overwrite: bool = False,
        on_progress: OnProgress | None = None,
        patience: float = CONTENT_PATIENCE,
        is_crowded: Callable[[], bool] = lambda: False,
    ) -> Transferred:
        """Receive the file into a directory, under its own name.

        Args:
            directory: where it will be.
            overwrite: whether it may replace a file of that name.
            on_progress: see `OnProgress`.
            patience: seconds that the sender may be silent in the middle of the file.
            is_crowded: whether others wait for this transfer to end; then it is `CROWDED_PATIENCE` at most.

        Returns:
            once it is there, whole and verified; whether the sender has heard of that is for the sender to say.

        Raises:
            TransferError: nothing was stored.
        """
        try:
            with PartFile(Path(directory), self.name, self.size, overwrite=overwrite) as part:
                with _peer_trouble("sender"):
                    await self._answer(Outcome.READY)
                    sha256 = await self._receive_content(part, on_progress, _Patience(patience, is_crowded))
                path = await anyio.to_thread.run_sync(part.store)
        except TransferError as error:
            await self.refuse(error)
            raise
        except BaseException:
            self._stream.stop(Outcome.CANCELLED.value)
            self._stream.reset(Outcome.CANCELLED.value)
            await self._stream.aclose()
            raise
        try:
            await self._answer(Outcome.STORED, sha256)
            await self._stream.aclose()
        except SttError:
            pass  # the file is in its place all the same
        return Transferred(self.name, path, self.size, sha256)

    async def _receive_content(self, part: PartFile, on_progress: OnProgress | None, patience: _Patience) -> bytes:
        digest, done = hashlib.sha256(), 0
        while done < self.size:
            chunk = await patience.receive(self._received, min(CHUNK, self.size - done))
            digest.update(chunk)
            part.write(chunk)
            done += len(chunk)
            if on_progress is not None:
                on_progress(done, self.size)
        told = b""
        while len(told) < _HASH_SIZE:
            told += await patience.receive(self._received, _HASH_SIZE - len(told))
        if told != digest.digest():
            raise TransferError(Outcome.DAMAGED, f"{self.name!a} was damaged on the way: its SHA-256 differs")
        return digest.digest()

    async def refuse(self, error: TransferError) -> None:
        """Tell the sender why not, as far as it still listens, and end the stream."""
        try:
            if not self._stream.can_send:
                self._stream.stop(error.outcome.value)
            elif error.outcome is not Outcome.VANISHED:
                await self._answer(error.outcome, str(error).encode(errors="replace")[:MAX_TEXT])
            await self._stream.aclose()
        except SttError:
            pass

    async def _answer(self, outcome: Outcome, text: bytes = b"") -> None:
        await self._stream.send(_ANSWER.pack(outcome, len(text)) + text)


class _Patience:
    """How long a sender may be silent.

    Args:
        seconds: at most.
        is_crowded: whether it is `CROWDED_PATIENCE` at most.
    """

    def __init__(self, seconds: float, is_crowded: Callable[[], bool]) -> None:
        self._seconds = seconds
        self._is_crowded = is_crowded

    async def receive(self, received: BufferedByteReceiveStream, max_bytes: int) -> bytes:
        """Receive what comes next; `TransferError` when nothing does."""
        silent = 0.0
        while True:
            seconds = min(CROWDED_PATIENCE, self._seconds - silent)
            with anyio.move_on_after(seconds):
                return await received.receive(max_bytes)
            silent += seconds
            if silent >= self._seconds or self._is_crowded():
                raise TransferError(Outcome.VANISHED, f"the sender said nothing for {silent:g} s")


# -- trouble -------------------------------------------------------------------------------------------------------


@contextmanager
def _peer_trouble(who: str) -> Iterator[None]:
    """Whatever the peer or the network does becomes a `TransferError`."""
    try:
        yield
    except (anyio.IncompleteRead, anyio.EndOfStream):
        raise TransferError(Outcome.VANISHED, f"the {who} ended the stream too early") from None
    except StreamClosedError as error:
        if error.stream_code == Outcome.CANCELLED:
            raise TransferError(Outcome.CANCELLED, f"cancelled by the {who}") from None
        raise TransferError(Outcome.VANISHED, f"lost the {who}: {printable(str(error))}") from error
    except SttError as error:
        raise TransferError(Outcome.VANISHED, f"lost the {who}: {printable(str(error))}") from error
    except TimeoutError:
        raise TransferError(Outcome.VANISHED, f"the {who} said nothing for {PATIENCE:g} s") from None


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TransferError(Outcome.UNREADABLE, f"cannot read {path}: {error.strerror}") from error
