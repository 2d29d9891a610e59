"""One file over one stream, whatever either side does wrong: whole on both sides, or nowhere and said so."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from stt_anyio.cli import transfer
from stt_anyio.cli.outcome import Outcome, TransferError
from stt_anyio.cli.progress import bars
from stt_anyio.cli.recv import Inbox
from stt_anyio.cli.storage import PartFile
from stt_anyio.cli.transfer import (
    CHUNK,
    MAX_TEXT,
    PURPOSE,
    Transferred,
    check_readable,
    receive_offer,
    send_file,
)
from stt_anyio.cli.verb import Failure
from stt_anyio.errors import SessionExpiredError, SessionTimeoutError, StateError, StreamClosedError
from stt_anyio.memory import memory_sessions
from stt_anyio.session import Session

Sessions = tuple[Session, Session]


@pytest.fixture
async def sessions(anyio_backend: str) -> AsyncIterator[Sessions]:
    async with memory_sessions() as pair:
        yield pair


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    (tmp_path / "inbox").mkdir()
    return tmp_path / "inbox"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(os.urandom(5 * CHUNK + 1))
    return path


def files(directory: Path) -> dict[str, bytes]:
    """Everything in a directory."""
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def content(path: Path) -> bytes:
    return path.read_bytes()


Result = Transferred | TransferError


async def both(sessions: Sessions, source: Path, inbox: Path, **receiving: Any) -> tuple[Result, Result]:
    """Send and receive at once; what became of it on either side."""
    results: dict[str, Result] = {}

    async def run(side: str, main: Callable[[], Any]) -> None:
        try:
            results[side] = await main()
        except TransferError as error:
            results[side] = error

    async def receive() -> Transferred:
        return await (await receive_offer(await sessions[1].accept_stream())).store(inbox, **receiving)

    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, "sent", lambda: send_file(sessions[0], source))
            tasks.start_soon(run, "received", receive)
    return results["sent"], results["received"]


def outcomes(results: tuple[Result, Result]) -> list[Outcome]:
    assert all(isinstance(result, TransferError) for result in results), results
    return [result.outcome for result in results if isinstance(result, TransferError)]


@pytest.mark.parametrize("size", [0, 1, CHUNK, 5 * CHUNK + 1])
async def test_whole_on_both_sides(sessions: Sessions, tmp_path: Path, inbox: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "größe.bin").write_bytes(data)
    sent, received = await both(sessions, tmp_path / "größe.bin", inbox)
    digest = hashlib.sha256(data).digest()
    assert sent == Transferred("größe.bin", tmp_path / "größe.bin", size, digest)
    assert received == Transferred("größe.bin", inbox / "größe.bin", size, digest)
    assert files(inbox) == {"größe.bin": data}


async def test_progress_reaches_the_end(sessions: Sessions, source: Path, inbox: Path) -> None:
    seen: list[tuple[int, int]] = []
    await both(sessions, source, inbox, on_progress=lambda done, total: seen.append((done, total)))
    size = len(content(source))
    assert seen[-1] == (size, size)
    assert seen == sorted(seen)


async def test_another_name(sessions: Sessions, source: Path, inbox: Path) -> None:
    async with anyio.create_task_group() as tasks:

        async def receive() -> None:
            offer = await receive_offer(await sessions[1].accept_stream())
            assert (offer.name, offer.size) == ("other", len(content(source)))
            await offer.store(inbox)

        tasks.start_soon(receive)
        assert (await send_file(sessions[0], source, name="other")).name == "other"
    assert (inbox / "other").exists()


# -- refused -------------------------------------------------------------------------------------------------------


async def test_existing_file(sessions: Sessions, source: Path, inbox: Path) -> None:
    (inbox / source.name).write_bytes(b"old")
    results = await both(sessions, source, inbox)
    assert outcomes(results) == [Outcome.EXISTS, Outcome.EXISTS]
    assert "exists already" in str(results[0])
    assert files(inbox) == {source.name: b"old"}
    assert isinstance((await both(sessions, source, inbox, overwrite=True))[0], Transferred)
    assert files(inbox) == {source.name: content(source)}


@pytest.mark.parametrize("name", ["../escape", "/tmp/escape", "a\x1b[2J", "..", "\udcff"])
async def test_names_that_lead_elsewhere(sessions: Sessions, source: Path, inbox: Path, name: str) -> None:
    async with anyio.create_task_group() as tasks:

        async def receive() -> None:
            with pytest.raises(TransferError) as caught:
                await (await receive_offer(await sessions[1].accept_stream())).store(inbox)
            assert caught.value.outcome is Outcome.BAD_NAME

        tasks.start_soon(receive)
        with pytest.raises(TransferError) as caught:
            await send_file(sessions[0], source, name=name)
        assert caught.value.outcome is Outcome.BAD_NAME
        assert str(caught.value).isprintable()
    assert not files(inbox)
    assert not (inbox.parent / "escape").exists()


async def test_a_disk_that_fills_up_half_way(
    sessions: Sessions, source: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def __init__(self, file: Any) -> None:
            self._file, self._room = file, 2 * CHUNK

        def write(self, data: bytes) -> int:
            if not self._room:
                raise OSError(errno.ENOSPC, "No space left on device")
            taken = int(self._file.write(data[: self._room]))
            self._room -= taken
            return taken

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

    def enter(part: PartFile) -> PartFile:
        part._file = Full(part._file)  # type: ignore[assignment]
        return part

    monkeypatch.setattr(PartFile, "__enter__", enter)
    results = await both(sessions, source, inbox)
    assert outcomes(results) == [Outcome.NO_SPACE, Outcome.NO_SPACE]
    assert "No space left on device" in str(results[0])
    assert not files(inbox)


# -- the peer goes away --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("who", [0, 1])
async def test_vanished(sessions: Sessions, source: Path, inbox: Path, who: int) -> None:
    def abort(done: int, total: int) -> None:
        sessions[who].abort()

    results = await both(sessions, source, inbox, on_progress=abort)
    assert outcomes(results) == [Outcome.VANISHED, Outcome.VANISHED]
    assert not files(inbox)


async def test_sender_cancelled(sessions: Sessions, source: Path, inbox: Path) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(cancelled_sender, sessions[0], source)
        offer = await receive_offer(await sessions[1].accept_stream())
        with pytest.raises(TransferError) as caught:
            await offer.store(inbox)
    assert caught.value.outcome is Outcome.CANCELLED
    assert not files(inbox)


async def cancelled_sender(session: Session, source: Path) -> None:
    with anyio.CancelScope() as scope:
        await send_file(session, source, on_progress=lambda done, total: scope.cancel())


async def test_receiver_cancelled(sessions: Sessions, source: Path, inbox: Path) -> None:
    async def receive() -> None:
        with anyio.CancelScope() as scope:
            offer = await receive_offer(await sessions[1].accept_stream())
            await offer.store(inbox, on_progress=lambda done, total: scope.cancel())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        with pytest.raises(TransferError) as caught:
            await send_file(sessions[0], source)
    assert caught.value.outcome is Outcome.CANCELLED
    assert not files(inbox)


async def test_gone_after_the_file_was_stored(sessions: Sessions, source: Path, inbox: Path) -> None:
    """The receiver has the file, and says so; the sender does not know, and does not claim to."""

    async def receive() -> Transferred:
        offer = await receive_offer(await sessions[1].accept_stream())
        answer = offer._answer

        async def abort_first(outcome: Outcome, text: bytes = b"") -> None:
            if outcome is Outcome.STORED:
                sessions[1].abort()
            await answer(outcome, text)

        offer._answer = abort_first  # type: ignore[method-assign]
        received.append(await offer.store(inbox))

    received: list[Transferred] = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        with pytest.raises(TransferError) as caught:
            await send_file(sessions[0], source)
    assert caught.value.outcome is Outcome.VANISHED
    assert content(received[0].path) == content(source)


# -- the source ----------------------------------------------------------------------------------------------------


async def test_source_that_shrinks(sessions: Sessions, source: Path, inbox: Path) -> None:
    def shrink(done: int, total: int) -> None:
        os.truncate(source, CHUNK)

    results = await both(sessions, source, inbox, on_progress=shrink)
    assert outcomes(results) == [Outcome.UNREADABLE, Outcome.CANCELLED]
    assert "became shorter" in str(results[0])
    assert not files(inbox)


async def test_source_that_grows(sessions: Sessions, source: Path, inbox: Path) -> None:
    data = content(source)

    def grow(done: int, total: int) -> None:
        source.write_bytes(data + b"more")

    sent, _ = await both(sessions, source, inbox, on_progress=grow)
    assert isinstance(sent, Transferred)
    assert files(inbox) == {source.name: data}


async def test_sources_that_are_no_files(sessions: Sessions, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, complaint in (("pipe", "not a regular file"), ("none", "No such file"), ("", "Is a directory")):
        with pytest.raises(TransferError, match=complaint) as caught:
            await send_file(sessions[0], tmp_path / name)
        assert caught.value.outcome is Outcome.UNREADABLE
    with pytest.raises(TransferError):
        check_readable(tmp_path / "pipe")


async def test_a_name_that_is_too_long(sessions: Sessions, source: Path) -> None:
    for name in ("", "x" * (MAX_TEXT + 1)):
        with pytest.raises(TransferError) as caught:
            await send_file(sessions[0], source, name=name)
        assert caught.value.outcome is Outcome.BAD_NAME
    check_readable(source)


# -- a peer that does not follow the rules -------------------------------------------------------------------------


def offer_bytes(name: bytes, size: int = 4) -> bytes:
    return size.to_bytes(8) + len(name).to_bytes(2) + name


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (b"", Outcome.VANISHED),
        (offer_bytes(b"file")[:-1], Outcome.VANISHED),
        (offer_bytes(b""), Outcome.BAD_NAME),
        (offer_bytes(b"x" * (MAX_TEXT + 1)), Outcome.BAD_NAME),
        (offer_bytes(b"\xff\xfe"), Outcome.BAD_NAME),
        (offer_bytes(b"file") + b"dat", Outcome.VANISHED),
        (offer_bytes(b"file") + b"data", Outcome.VANISHED),
        (offer_bytes(b"file") + b"data" + bytes(32), Outcome.DAMAGED),
    ],
)
async def test_bad_senders(sessions: Sessions, inbox: Path, said: bytes, outcome: Outcome) -> None:
    stream = sessions[0].open_stream(purpose=PURPOSE)
    await stream.send(said)
    await stream.send_eof()
    with anyio.fail_after(5), pytest.raises(TransferError) as caught:
        await (await receive_offer(await sessions[1].accept_stream())).store(inbox)
    assert caught.value.outcome is outcome
    assert not files(inbox)


async def test_a_stream_about_something_else(sessions: Sessions) -> None:
    stream = sessions[0].open_stream(purpose="chat")
    await stream.send(b"hello")
    with pytest.raises(TransferError) as caught:
        await receive_offer(await sessions[1].accept_stream())
    assert caught.value.outcome is Outcome.MALFORMED
    assert (await stream.receive())[0] == Outcome.MALFORMED


READY = b"\0\0\0"


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (b"", Outcome.VANISHED),
        (b"\0", Outcome.VANISHED),
        (b"\x7f\0\0", Outcome.MALFORMED),
        (b"\x02\xff\xff", Outcome.MALFORMED),
        (b"\x04\0\x05\x1b[2JX", Outcome.NO_SPACE),
        (READY + b"\x01\0\x20" + bytes(32), Outcome.DAMAGED),
        (READY + READY, Outcome.READY),
    ],
)
async def test_bad_receivers(sessions: Sessions, source: Path, said: bytes, outcome: Outcome) -> None:
    async def answer() -> None:
        stream = await sessions[1].accept_stream()
        await stream.send(said)
        await stream.send_eof()
        with contextlib.suppress(StreamClosedError):
            async for _ in stream:
                pass

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer)
            with pytest.raises(TransferError) as caught:
                await send_file(sessions[0], source)
            tasks.cancel_scope.cancel()
    assert caught.value.outcome is outcome
    assert str(caught.value).isprintable()


async def test_a_peer_that_says_nothing(sessions: Sessions, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PATIENCE", 0.01)
    with pytest.raises(TransferError, match="said nothing") as caught:
        await send_file(sessions[0], source)
    assert caught.value.outcome is Outcome.VANISHED
    await sessions[1].accept_stream()
    silent = sessions[0].open_stream(purpose=PURPOSE)
    await silent.send(b"\0")
    with pytest.raises(TransferError, match="said nothing"):
        await receive_offer(await sessions[1].accept_stream())


@pytest.mark.parametrize("purpose", [PURPOSE, "chat"])
async def test_an_offer_on_a_one_way_stream(sessions: Sessions, purpose: str) -> None:
    """Nothing can be answered on it; so it is stopped, and no more than this transfer fails."""
    stream = sessions[0].open_stream(purpose=purpose, bidirectional=False)
    await stream.send(offer_bytes(b"file") + b"data")
    with pytest.raises(TransferError) as caught:
        await receive_offer(await sessions[1].accept_stream())
    assert caught.value.outcome is Outcome.MALFORMED
    with anyio.fail_after(5), pytest.raises(StreamClosedError) as stopped:
        await stream.send(bytes(1 << 26))
    assert stopped.value.stream_code == Outcome.MALFORMED


@pytest.mark.parametrize("sent", [b"", b"da", b"data", b"data" + bytes(31)])
async def test_a_sender_that_says_nothing_in_the_middle(sessions: Sessions, inbox: Path, sent: bytes) -> None:
    stream = sessions[0].open_stream(purpose=PURPOSE)
    await stream.send(offer_bytes(b"file") + sent)
    offer = await receive_offer(await sessions[1].accept_stream())
    with anyio.fail_after(5), pytest.raises(TransferError, match="said nothing") as caught:
        await offer.store(inbox, patience=0.01)
    assert caught.value.outcome is Outcome.VANISHED
    assert not files(inbox)


async def test_who_is_silent_loses_its_place_when_others_wait(
    sessions: Sessions, source: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One place for all: a sender that has it and says nothing, and one on another stream that wants it."""
    monkeypatch.setattr("stt_anyio.cli.recv.MAX_AT_ONCE", 1)
    monkeypatch.setattr(transfer, "CROWDED_PATIENCE", 0.01)
    told: list[str] = []
    monkeypatch.setattr(Failure, "tell", lambda failure, **_: told.append(failure.message))
    with bars(wanted=False) as shown:
        taker = Inbox(inbox, overwrite=False, once=False, patience=1e9, as_json=False, shown=shown)
    silent = sessions[0].open_stream(purpose=PURPOSE)
    await silent.send(offer_bytes(b"silent"))
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(taker._take, sessions[1], await sessions[1].accept_stream())
            assert await silent.receive() == READY
            assert not told, "nobody waits for its place"
            tasks.start_soon(send_file, sessions[0], source)
            await taker._take(sessions[1], await sessions[1].accept_stream())
    assert files(inbox) == {source.name: content(source)}
    assert len(told) == 1
    assert told[0].startswith("the sender said nothing")


async def test_who_offers_nothing_takes_no_place(
    sessions: Sessions, source: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stt_anyio.cli.recv.MAX_AT_ONCE", 1)
    with bars(wanted=False) as shown:
        taker = Inbox(inbox, overwrite=False, once=False, patience=1e9, as_json=False, shown=shown)
    silent = sessions[0].open_stream(purpose=PURPOSE)
    await silent.send(b"\0")
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(taker._take, sessions[1], await sessions[1].accept_stream())
            tasks.start_soon(send_file, sessions[0], source)
            await taker._take(sessions[1], await sessions[1].accept_stream())
            tasks.cancel_scope.cancel()
    assert files(inbox) == {source.name: content(source)}


async def test_a_receiver_that_wants_nothing_and_claims_to_have_it(sessions: Sessions, source: Path) -> None:
    """Nobody has heard of a hash; an empty one is none that agrees."""

    async def answer() -> None:
        stream = await sessions[1].accept_stream()
        await stream.send(READY)
        stream.stop()
        await stream.send(b"\x01\0\0")

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer)
            with pytest.raises(TransferError) as caught:
                await send_file(sessions[0], source)
    assert caught.value.outcome is Outcome.DAMAGED


@pytest.mark.parametrize("error", [SessionExpiredError("too old"), SessionTimeoutError("silent"), StateError("odd")])
async def test_however_a_session_ends_the_inbox_goes_on(
    sessions: Sessions, inbox: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """What ended it is in the hand of one peer."""

    async def ended() -> None:
        raise error

    monkeypatch.setattr(sessions[1], "accept_stream", ended)
    with bars(wanted=False) as shown:
        taker = Inbox(inbox, overwrite=False, once=False, patience=1, as_json=False, shown=shown)
    with anyio.fail_after(5):
        await taker._attend(sessions[1], anyio.CancelScope())


async def test_two_that_fail_in_one_moment(sessions: Sessions, inbox: Path) -> None:
    """With `--once` the fate of one of them is told, and not a group of both."""
    for _ in range(2):
        stream = sessions[0].open_stream(purpose="chat")
        await stream.send(b"hello")
    streams = [await sessions[1].accept_stream() for _ in range(2)]
    with bars(wanted=False) as shown:
        taker = Inbox(inbox, overwrite=False, once=True, patience=1, as_json=False, shown=shown)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            for stream in streams:
                tasks.start_soon(taker._take, sessions[1], stream)
    assert isinstance(taker._failed, TransferError)
