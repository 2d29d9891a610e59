"""A client that comes back by itself, in virtual time: when it dials, and what it says of requests (MISSION G9, J)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from stt_anyio import (
    AuthenticationError,
    NotSentError,
    OutcomeUnknownError,
    ReconnectingClient,
    ReconnectPolicy,
    Session,
    Stream,
    STTNode,
    TicketRefusal,
)
from stt_anyio.errors import (
    ArgumentError,
    BufferOverflowError,
    SessionClosedError,
    StateError,
    StreamClosedError,
    WebSocketHandshakeError,
)
from stt_anyio.errors import ConnectionRefusedError as RefusedError
from stt_anyio.memory import MemoryNetwork
from stt_anyio.operation import Operation
from stt_anyio.waiting import Feed
from stt_proto.reconnect import Connected, Detached, Dialing, Ended, GivenUp, Lost, State, Waiting, is_final
from tests.anyio.virtual import LOOPS, Radio, tasks_alive, virtual

CLIENT_SEED, SERVER_SEED = b"c" * 32, b"s" * 32
FLEET = b"f" * 32


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return virtual(request.param)


class Server:
    """A node that can crash and come back; it answers requests with themselves, in upper case, unless told otherwise.

    Attributes:
        done: the requests that its application has seen whole.
        mute: whether it answers nothing.
        last_words: whether it closes its session with the answer.
        refuse: the code with which it resets streams.
        half: all that it answers.
        slow: seconds that it waits before it reads.
    """

    def __init__(self, network: MemoryNetwork, name: str = "server", **options: Any) -> None:
        self._network = network
        self._name = name
        self._options = {"node_seed": SERVER_SEED, "shared_seed": "x", "server_mode": True, **options}
        self._tasks: anyio.abc.TaskGroup | None = None
        self.done: list[bytes] = []
        self.mute = self.last_words = False
        self.refuse: int | None = None
        self.half = b""
        self.slow = 0.0

    @asynccontextmanager
    async def up(self, **options: Any) -> AsyncIterator[STTNode]:
        self.radio = Radio(self._network, self._name)
        async with (
            STTNode(carriers=[self.radio], **(self._options | options)) as node,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(node.serve, self._welcome)
            yield node
            tasks.cancel_scope.cancel()

    async def _welcome(self, session: Session) -> None:
        await session.serve(self._answer)

    async def _answer(self, stream: Stream) -> None:
        if self.refuse is not None:
            stream.reset(self.refuse)
            await stream.aclose()
            return
        await anyio.sleep(self.slow)
        try:
            request = b"".join([piece async for piece in stream])
        except StreamClosedError:
            return  # given up
        self.done.append(request)
        if self.half:
            await stream.send(self.half)
        if self.mute or self.half:
            await anyio.sleep_forever()
        await stream.send(request.upper())
        await stream.aclose()
        if self.last_words:
            await stream.session.close()  # type: ignore[misc]


@asynccontextmanager
async def clients(network: MemoryNetwork, **options: Any) -> AsyncIterator[tuple[STTNode, ReconnectingClient]]:
    """A client of the server on that network."""
    parameters = {name: options.pop(name) for name in ("shared_seed", "max_concurrent_streams") if name in options}
    radio = Radio(network, "client")
    async with STTNode(CLIENT_SEED, **{"shared_seed": "x", **parameters}, carriers=[radio]) as node:
        with anyio.fail_after(10_000):
            async with node.reconnecting("server", **options) as client:
                yield node, client


async def until(client: ReconnectingClient, kind: type[Any], events: Feed[State] | None = None) -> Any:
    """Wait for a state."""
    async for state in events or client.events():
        if isinstance(state, kind):
            return state
    raise AssertionError(f"it is over: {client.state}")


# -- when it dials -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resumed", [True, False])
async def test_a_server_that_restarts(resumed: bool) -> None:
    """G9, C7: resumption first; where the server has forgotten its tickets, a full handshake, in the same try."""
    network = MemoryNetwork()
    options: dict[str, Any] = {"fleet_secret": FLEET} if resumed else {}
    server = Server(network, **options)
    async with clients(network) as (_, client):
        async with server.up():
            assert await client.request(b"one") == b"ONE"
            first = await client.session()
            while first.ticket is None:
                await anyio.sleep(0.01)
            server.radio.silent = True  # so that it is up again when the client notices
        async with server.up():
            await until(client, Dialing)
            assert await client.request(b"two") == b"TWO"
            session = await client.session()
            assert session is not first
            assert session.resumed is resumed
            assert client.state == Connected(resumed)
            if not resumed:
                assert session.resumption_error is not None
                assert session.resumption_error.reason == TicketRefusal.UNKNOWN
            assert client.sessions == 2


async def test_a_server_that_is_down_for_three_tries() -> None:
    """G9: dialled at once, then after 1, 2 and 4 seconds, each at most a quarter less."""
    network = MemoryNetwork()
    waits: list[float] = []
    async with clients(network) as (_, client), Server(network).up() as node:
        await client.session()
        await anyio.sleep(100)
        await node.stop()
        async for state in client.events():
            if isinstance(state, Waiting):
                assert state.error is not None
                assert not is_final(state.error)
                waits.append(state.until - anyio.current_time())
                if len(waits) == 3:
                    break
        async with Server(network).up():
            session = await client.session()
            assert session.is_active()
    for wait, full in zip(waits, (1, 2, 4), strict=True):
        assert 0.75 * full <= wait <= full


async def test_states() -> None:
    """G9: what happens, in order, to whoever iterates; the last says that it is over."""
    network, seen = MemoryNetwork(), list[State]()

    async def watch(client: ReconnectingClient) -> None:
        async for state in client.events():
            seen.append(state)

    async with anyio.create_task_group() as tasks, clients(network) as (_, client):
        tasks.start_soon(watch, client)
        async with Server(network).up():
            await client.session()
            await anyio.sleep(20)
        await until(client, Waiting)
    kinds = [type(state) for state in seen]
    assert kinds == [Waiting, Dialing, Connected, Lost, Dialing, Waiting, Ended]
    assert "ReconnectingClient of 'server'" in repr(client)


async def test_a_wrong_seed_ends_it_at_once() -> None:
    """G9, A3: everybody who waits gets the error, each an object of his own, and nobody dials any more."""
    network = MemoryNetwork()
    async with Server(network).up(), clients(network, shared_seed="y", timeout=None) as (_, client):
        errors = []
        for _ in range(2):
            with pytest.raises(AuthenticationError) as caught:
                await client.session()
            assert isinstance(caught.value, anyio.ConnectionFailed)
            errors.append(caught.value)
        assert errors[0] is not errors[1]
        with pytest.raises(NotSentError) as unsent:
            await client.request(b"hello")
        assert isinstance(unsent.value.__cause__, AuthenticationError)
        assert isinstance(client.state, GivenUp)
        before = anyio.current_time()
        assert [state async for state in client.events()] == [client.state]
        await anyio.sleep(600)
        assert isinstance(client.state, GivenUp)
        assert anyio.current_time() >= before + 600
        assert client.sessions == 0


async def test_somebody_else_answers_for_a_while() -> None:
    """G9, A3: after a session another seed is no end: the state tells of it, and the peer is found when it is back."""
    network = MemoryNetwork()
    async with clients(network) as (_, client):
        async with Server(network).up():
            await client.session()
        async with Server(network, shared_seed="y", node_seed=b"z" * 32).up():
            events = client.events()
            while not isinstance((await until(client, Waiting, events)).error, AuthenticationError):
                pass
            with pytest.raises(NotSentError):
                await client.request(b"one", timeout=10)
        async with Server(network).up():
            assert await client.request(b"two") == b"TWO"


async def test_another_peer_than_the_one_asked_for() -> None:
    network = MemoryNetwork()
    async with Server(network).up(), clients(network, peer_node_id=b"z" * 32) as (_, client):
        with pytest.raises(AuthenticationError):
            await client.session()


async def test_refused_by_the_peers_policy() -> None:
    """What `admit` of the peer says decides: not now, or never."""
    network = MemoryNetwork()
    codes = [RefusedError.code, RefusedError.code, AuthenticationError.code]
    server = Server(network, admit=lambda node_id, path, now: codes.pop(0))
    async with server.up(), clients(network) as (_, client):
        with pytest.raises(AuthenticationError):
            await client.session()
        assert codes == []


async def test_given_up_after_so_many_tries() -> None:
    network = MemoryNetwork()
    async with clients(network, policy=ReconnectPolicy(attempts=3)) as (_, client):
        before = anyio.current_time()
        with pytest.raises(RefusedError):
            await client.session()
        assert 2.25 <= anyio.current_time() - before <= 3


def test_web_servers_that_are_starting() -> None:
    """A web server whose STT server is not up yet says 502 or 503, which passes; 404 does not."""
    for status, final in ((502, False), (503, False), (429, False), (404, True), (None, True)):
        assert is_final(WebSocketHandshakeError("no", status=status)) is final


# -- what became of a request --------------------------------------------------------------------------------------


async def test_cut_before_it_is_sent() -> None:
    """G9: not sent; it is made on the next session by itself, and done once."""
    network = MemoryNetwork()
    server = Server(network, max_concurrent_streams=1)
    answers: list[bytes] = []

    async def ask(client: ReconnectingClient) -> None:
        answers.append(await client.request(b"two"))

    async with clients(network) as (_, client), anyio.create_task_group() as tasks:
        async with server.up():
            session = await client.session()
            taken = session.open_stream()
            await taken.send(b"there is room for no other")
            tasks.start_soon(ask, client)
            await anyio.sleep(5)
        assert answers == server.done == []
        async with server.up():
            while not answers:
                await anyio.sleep(0.01)
    assert (answers, server.done) == ([b"TWO"], [b"two"])


async def test_there_is_no_session_in_time() -> None:
    """G9: not sent, and the time is over."""
    network = MemoryNetwork()
    async with clients(network) as (_, client):
        with pytest.raises(NotSentError) as caught:
            await client.request(b"hello", timeout=30)
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.retryable
        assert "30 seconds" in str(caught.value)


@pytest.mark.parametrize("data", [b"hello", b""])
async def test_cut_after_it_was_sent(data: bytes) -> None:
    """G9: unknown, with what the peer's node has acknowledged; it is not made again."""
    network = MemoryNetwork()
    server = Server(network)
    server.mute = True
    async with clients(network) as (_, client):
        async with server.up() as node, anyio.create_task_group() as tasks:

            async def ask() -> None:
                with pytest.raises(OutcomeUnknownError) as caught:
                    await client.request(data)
                error = caught.value
                assert (error.bytes_sent, error.bytes_acknowledged, error.bytes_received) == (len(data), len(data), 0)
                assert isinstance(error.__cause__, SessionClosedError)
                assert not error.retryable
                assert not isinstance(error, TimeoutError)

            tasks.start_soon(ask)
            await anyio.sleep(5)
            for session in node.get_active_sessions():
                session.abort()
        assert server.done == [data]


async def test_sent_and_lost() -> None:
    """G9: what was put into packets may have arrived, also when no acknowledgement came."""
    network = MemoryNetwork()
    server = Server(network)
    async with server.up(), clients(network) as (_, client):
        await client.session()
        server.radio.silent = True
        with pytest.raises(OutcomeUnknownError) as caught:
            await client.request(b"hello", timeout=5)
        assert isinstance(caught.value, TimeoutError)
        assert (caught.value.bytes_sent, caught.value.bytes_acknowledged) == (5, 0)
        assert server.done == []


async def test_there_is_no_room_to_send() -> None:
    """G9: not sent: it stands behind what fills the congestion window, and nothing of it is in a packet yet."""
    network = MemoryNetwork()
    server = Server(network)
    async with server.up(), clients(network) as (_, client):
        session = await client.session()
        server.radio.silent = True
        await session.open_stream().send(bytes(500_000))
        with pytest.raises(NotSentError):
            await client.request(b"hello", timeout=0.01)
        server.radio.silent = False
        assert await client.request(b"again") == b"AGAIN"
        assert b"hello" not in server.done


async def test_a_part_is_not_taken_for_all() -> None:
    """G9: a request that is given up while it is being sent is reset; what the peer has of it has no end."""
    network = MemoryNetwork()
    server = Server(network)
    server.slow = 30.0
    async with server.up(), clients(network) as (_, client):
        with pytest.raises(OutcomeUnknownError) as caught:
            await client.request(bytes(5_000_000), timeout=10)
        assert 0 < caught.value.bytes_acknowledged <= caught.value.bytes_sent < 5_000_000
        assert await client.request(b"again") == b"AGAIN"
        await anyio.sleep(60)
        assert server.done == [b"again"]


async def test_cut_within_the_answer() -> None:
    """G9: half an answer is none."""
    network = MemoryNetwork()
    server = Server(network)
    server.half = b"HEL"
    async with server.up(), clients(network) as (_, client):
        with pytest.raises(OutcomeUnknownError) as caught:
            await client.request(b"hello", timeout=5)
        assert caught.value.bytes_received == 3


async def test_cut_after_the_answer() -> None:
    """G9: acknowledged: the whole answer is there, and returned though the session has ended with it."""
    network = MemoryNetwork()
    server = Server(network)
    server.last_words = True
    async with server.up(), clients(network) as (_, client):
        for number in range(3):
            assert await client.request(b"%d." % number) == b"%d." % number
        assert server.done == [b"0.", b"1.", b"2."]
        assert client.sessions == 3


async def test_answered_before_it_was_sent() -> None:
    """G9: the answer stands, and the peer does not take what it has of the request for all of it."""
    network, heard = MemoryNetwork(), list[str]()

    async def answer(stream: Stream) -> None:
        await stream.receive(10)
        await stream.send(b"enough")
        await stream.send_eof()
        await anyio.sleep(5)
        with pytest.raises(StreamClosedError):
            async for _ in stream:
                pass
        heard.append("reset")

    radio = Radio(network, "server")
    async with (
        STTNode(SERVER_SEED, shared_seed="x", server_mode=True, carriers=[radio]) as node,
        clients(network) as (_, client),
        anyio.create_task_group() as tasks,
    ):

        async def welcome(session: Session) -> None:
            await session.serve(answer)

        tasks.start_soon(node.serve, welcome)
        assert await client.request(bytes(5_000_000)) == b"enough"
        await anyio.sleep(10)
        assert heard == ["reset"]
        tasks.cancel_scope.cancel()


async def test_what_may_be_done_twice_is_repeated() -> None:
    """G9: with `repeat` it is made again after an unknown outcome, until an answer comes."""
    network = MemoryNetwork()
    server = Server(network)
    server.mute = True
    answers: list[bytes] = []

    async def ask(client: ReconnectingClient) -> None:
        answers.append(await client.request(b"hello", repeat=True))

    async with clients(network) as (_, client), anyio.create_task_group() as tasks:
        tasks.start_soon(ask, client)
        async with server.up():
            await anyio.sleep(5)
        assert not answers
        server.mute = False
        async with server.up():
            while not answers:
                await anyio.sleep(0.01)
    assert (answers, server.done) == ([b"HELLO"], [b"hello", b"hello"])


async def test_repeated_in_vain() -> None:
    """G9: once it was sent the outcome is unknown, however it ends."""
    network = MemoryNetwork()
    server = Server(network)
    server.mute = True
    async with clients(network, policy=ReconnectPolicy(attempts=2)) as (_, client), anyio.create_task_group() as tasks:

        async def ask() -> None:
            with pytest.raises(OutcomeUnknownError) as caught:
                await client.request(b"hello", repeat=True)
            assert isinstance(caught.value.__cause__, RefusedError)

        tasks.start_soon(ask)
        async with server.up():
            await anyio.sleep(20)


async def test_answers_that_are_no_answers() -> None:
    """A reset is the peer's answer, and too long a one an error; neither is taken for a lost session."""
    network = MemoryNetwork()
    server = Server(network)
    async with server.up(), clients(network) as (_, client):
        with pytest.raises(BufferOverflowError):
            await client.request(b"hello", max_size=4)
        server.refuse = 7
        with pytest.raises(StreamClosedError) as caught:
            await client.request(b"hello")
        assert caught.value.stream_code == 7
        for arguments in ({"data": "text"}, {"data": b"", "purpose": "x" * 256}, {"data": b"", "repeat": 1}):
            with pytest.raises(ArgumentError):
                await client.request(**arguments)  # type: ignore[arg-type]
        session = await client.session()
        assert not session.streams
        assert client.sessions == 1
    answer = StreamClosedError("no", stream_code=7)
    with pytest.raises(StreamClosedError):
        Operation(b"", repeat=True).goes_on_after(answer, session_is_over=True)


async def test_much_both_ways() -> None:
    """Requests and answers larger than all buffers, several at once."""
    network = MemoryNetwork()
    async with Server(network).up(), clients(network) as (_, client), anyio.create_task_group() as tasks:

        async def ask(letter: bytes) -> None:
            assert await client.request(letter * 3_000_000) == letter.upper() * 3_000_000

        for letter in (b"a", b"b", b"c"):
            tasks.start_soon(ask, letter)


@pytest.mark.parametrize("seed", range(12))
async def test_what_is_said_is_true(seed: int) -> None:
    """G9, S15: under random crashes and silences, with or without `repeat`, each request is told as it is."""
    random, network = Random(seed), MemoryNetwork()
    server = Server(network, fleet_secret=FLEET if seed % 2 else None, keep_alive_interval=1.0, keep_alive_timeout=3.0)
    told: dict[bytes, str] = {}
    finished = 0

    async def ask(client: ReconnectingClient, name: bytes, repeat: bool) -> None:
        nonlocal finished
        await anyio.sleep(random.uniform(0, 100))
        try:
            answer = await client.request(name, repeat=repeat, timeout=random.choice([None, 1, 20]))
            assert answer == name.upper()
            told[name] = "done"
        except NotSentError:
            told[name] = "not sent"
        except OutcomeUnknownError:
            told[name] = "unknown"
        finished += 1

    async with clients(network) as (_, client), anyio.create_task_group() as tasks:
        names = {b"%d %s" % (number, b"twice" if number % 2 else b"once"): bool(number % 2) for number in range(40)}
        for name, repeat in names.items():
            tasks.start_soon(ask, client, name, repeat)
        while finished < len(names):
            async with server.up() as node:
                await anyio.sleep(random.uniform(0, 12))
                match random.randrange(4):
                    case 0:
                        server.radio.silent = True
                        await anyio.sleep(random.uniform(0, 8))
                        server.radio.silent = False
                        await anyio.sleep(random.uniform(0, 3))
                    case 1:
                        server.radio.silent = True  # and so nobody hears that it goes
                    case 2:
                        for session in node.get_active_sessions():
                            session.abort()
                server.mute = random.random() < 0.4
            await anyio.sleep(random.uniform(0, 3))
    for name, repeat in names.items():
        count = server.done.count(name)
        match told[name]:
            case "done":
                assert count == 1 or (repeat and count > 1)
            case "not sent":
                assert count == 0
            case "unknown":
                assert count <= 1 or repeat
    assert told.keys() == names.keys()


# -- without a path ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wait", [1, 3600], ids=["found", "by itself"])
async def test_a_silence_that_passes(wait: float) -> None:
    """C9, G9: the session is detached, found again, and the request on it gets its answer; nothing is made anew.

    It can come back by itself too, before it is time to look for it.
    """
    network = MemoryNetwork()
    server = Server(network)
    policy = ReconnectPolicy(first=wait, most=3600)
    async with server.up(), clients(network, policy=policy) as (_, client):
        session = await client.session()
        server.radio.silent = True
        answers: list[bytes] = []

        async def ask() -> None:
            answers.append(await client.request(b"hello"))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await until(client, Detached)
            await until(client, Waiting)
            server.radio.silent = False
            assert await client.session() is session
        assert answers == [b"HELLO"]
        assert (client.sessions, server.done) == (1, [b"hello"])


async def test_a_restart_that_nobody_heard_of() -> None:
    """G9: where the peer answers, and knows the session no longer, there is a new one long before `detach_timeout`."""
    network = MemoryNetwork()
    server = Server(network)
    async with clients(network) as (_, client):
        async with server.up():
            first = await client.session()
            server.radio.silent = True
        async with server.up():
            before = anyio.current_time()
            assert await client.request(b"hello") == b"HELLO"
            assert anyio.current_time() - before < 60
            assert first.is_closed
            assert client.sessions == 2


async def test_nobody_comes_back_for_long() -> None:
    """G9: the detached session ends after its time, and the tries go on as they stood."""
    network = MemoryNetwork()
    server = Server(network)
    async with clients(network) as (_, client):
        async with server.up():
            await client.session()
            server.radio.silent = True
            events = client.events()
        lost = await until(client, Lost, events)
        assert lost.reason == "timeout"
        await until(client, Waiting)
        async with server.up():
            assert await client.request(b"hello") == b"HELLO"


@pytest.mark.parametrize("closed", [False, True])
async def test_it_is_back_while_a_new_one_is_dialled(closed: bool) -> None:
    """C9, G9: then it stays, since nothing on it is lost; and where it was closed here, neither is wanted."""
    network = MemoryNetwork()
    server = Server(network)
    prepared: list[Session] = []

    async def prepare(session: Session) -> None:
        prepared.append(session)
        if len(prepared) > 1 and closed:
            prepared[0].abort()
        while prepared[0].is_detached:
            await anyio.sleep(0.01)

    async with server.up(), clients(network, prepare=prepare) as (_, client):
        first = await client.session()
        server.radio.silent = True
        await until(client, Detached)
        await anyio.sleep(8)  # it is dialled by now
        assert isinstance(client.state, Dialing)
        server.radio.silent = False
        await until(client, Ended if closed else Connected)
        if not closed:
            assert await client.session() is first
        assert len(prepared) == 2
        assert prepared[1].is_closed
        assert client.sessions == 1


async def test_given_up_without_a_path() -> None:
    """Nothing is left of a session for which nobody looks any more."""
    network = MemoryNetwork()
    server = Server(network)
    async with server.up(), clients(network, policy=ReconnectPolicy(attempts=1)) as (node, client):
        await client.session()
        await anyio.sleep(10)
        server.radio.silent = True
        await until(client, GivenUp)
        assert not node.sessions


# -- setting up again ----------------------------------------------------------------------------------------------


async def test_each_session_is_prepared() -> None:
    """G9: what a session is to have is set up again on each, before anybody gets it."""
    network = MemoryNetwork()
    server = Server(network)

    async def prepare(session: Session) -> None:
        stream = session.open_stream()
        await stream.send(b"settings")
        await stream.send_eof()
        assert await stream.receive() == b"SETTINGS"
        session.metadata["ready"] = True

    async with clients(network, prepare=prepare) as (_, client):
        for number in (1, 2):
            async with server.up():
                session = await client.session()
                assert session.metadata == {"ready": True}
                assert server.done == [b"settings"] * number


async def test_a_session_that_ends_while_it_is_prepared() -> None:
    """It is dialled again, later each time."""
    network = MemoryNetwork()
    server = Server(network)
    tries = 0

    async def prepare(session: Session) -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            for other in node.get_active_sessions():
                other.abort()
        stream = session.open_stream()
        await stream.send(b"settings")
        await stream.send_eof()
        await stream.receive()

    async with server.up() as node, clients(network, prepare=prepare) as (_, client):
        await client.session()
        assert (tries, client.sessions) == (3, 1)


async def test_a_session_that_ends_under_the_tasks_of_prepare() -> None:
    """The group in which its tasks tell of that is no failure of the application's own."""
    network = MemoryNetwork()
    tries = 0

    async def prepare(session: Session) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            for other in node.get_active_sessions():
                other.abort()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.accept_stream if tries == 1 else checkpoint)

    async with Server(network).up() as node, clients(network, prepare=prepare) as (_, client):
        await client.session()
        assert (tries, client.sessions) == (2, 1)


@pytest.mark.parametrize("of_the_node", [False, True], ids=["client", "node"])
@pytest.mark.parametrize("in_a_task", [False, True], ids=["itself", "its task"])
async def test_preparing_ends_it(of_the_node: bool, in_a_task: bool) -> None:
    """`prepare` may find that it is no use, and close the client or stop the node: neither waits for the other."""
    network = MemoryNetwork()

    async def prepare(session: Session) -> None:
        end = node.stop if of_the_node else client.close
        if in_a_task:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(end)
        else:
            await end()

    async with (
        Server(network).up() as server,
        STTNode(shared_seed="x", carriers=[Radio(network, "client")]) as node,
    ):
        client = node.reconnecting("server", prepare=prepare)
        with anyio.fail_after(60), pytest.raises(anyio.ClosedResourceError):
            await client.session()
        await client.close()
        assert client.state == Ended()
        await anyio.sleep(1)
        assert not node.sessions
        assert not server.sessions
        assert node.running is not of_the_node


async def test_what_prepare_must_not_wait_for() -> None:
    """A11: a session of the client, for which everybody waits, `prepare` included; it says so."""
    network = MemoryNetwork()
    errors: list[StateError] = []

    async def prepare(session: Session) -> None:
        for call in (client.session, lambda: client.request(b"hello")):
            with pytest.raises(StateError) as caught:
                await call()
            errors.append(caught.value)

    async with Server(network).up(), STTNode(shared_seed="x", carriers=[Radio(network, "client")]) as node:
        client = node.reconnecting("server", prepare=prepare)
        await client.session()
        assert ["prepare" in str(error) for error in errors] == [True, True]
        await client.close()


async def test_preparing_fails() -> None:
    """An exception of the application's own ends it, is counted, and closes the session."""
    network = MemoryNetwork()

    async def prepare(session: Session) -> None:
        raise RuntimeError("a bug")

    async with Server(network).up(), clients(network, prepare=prepare) as (node, client):
        with pytest.raises(RuntimeError):
            await client.session()
        with pytest.raises(NotSentError):
            await client.request(b"hello")
        assert node.get_stats().handler_errors == 1
        assert not node.sessions


async def test_what_is_no_argument() -> None:
    """A11: the caller's mistake, at once; what only a try can find ends it."""
    async with STTNode(shared_seed="x", carriers=[Radio(MemoryNetwork(), "client")]) as node:
        for name in ("policy", "ticket", "prepare"):
            with pytest.raises(ArgumentError) as caught:
                node.reconnecting("server", **{name: 5})  # type: ignore[arg-type]
            assert caught.value.argument == name
            assert "it must be a" in str(caught.value)
        with pytest.raises(ArgumentError):
            await node.reconnecting("server", transport="pigeon").session()


# -- ending --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", [Waiting, Dialing, Connected, Detached])
async def test_closing_ends_it(when: type[Any]) -> None:
    """G9: the session is closed, nobody dials any more, no task is left; whoever waits is told."""
    network = MemoryNetwork()
    server = Server(network)
    async with STTNode(shared_seed="x", carriers=[Radio(network, "client")]) as node:
        before = tasks_alive()
        async with server.up() if when is not Waiting else Server(network, "nobody").up() as other:
            client = node.reconnecting("server")
            if when is Dialing:
                other.disable_accept_connections()
                server.radio.silent = True
            if when is Detached:
                await client.session()
                server.radio.silent = True
            await until(client, when)

            async def wait() -> None:
                async for _ in client.events():
                    pass

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(wait)
                await checkpoint()
                await client.close()
                await client.aclose()
            assert client.state == Ended()
            assert not node.sessions
            with pytest.raises(anyio.ClosedResourceError):
                await client.session()
            with pytest.raises(NotSentError):
                await client.request(b"hello")
            await anyio.sleep(200)
            assert not node.sessions
        assert tasks_alive() == before


async def test_closing_under_cancellation() -> None:
    """It aborts, waits for nothing, and leaves nothing."""
    network = MemoryNetwork()
    async with Server(network).up(), STTNode(shared_seed="x", carriers=[Radio(network, "client")]) as node:
        with anyio.CancelScope() as scope:
            async with node.reconnecting("server") as client:
                await client.session()
                scope.cancel()
                await checkpoint()
        assert client.state == Ended()
        assert not node.sessions


async def test_a_request_that_is_cancelled() -> None:
    """The peer's reader is told; the client and its session go on."""
    network = MemoryNetwork()
    server = Server(network)
    server.mute = True
    async with server.up() as node, clients(network) as (_, client):
        with anyio.move_on_after(5):
            await client.request(b"hello")
        (session,) = node.get_active_sessions()
        server.mute = False
        assert await client.request(b"again") == b"AGAIN"
        assert client.sessions == 1
        assert not (await client.session()).streams
        assert session.is_active()


async def test_a_session_that_was_closed_here() -> None:
    """Who closes the session wants no other."""
    network = MemoryNetwork()
    async with Server(network).up(), clients(network) as (_, client):
        await (await client.session()).close()
        with pytest.raises(SessionClosedError):
            await client.session()
        assert client.state == Ended()


async def test_closed_while_a_new_one_is_dialled() -> None:
    network = MemoryNetwork()
    server = Server(network)
    async with clients(network) as (node, client):
        async with server.up():
            session = await client.session()
            server.radio.silent = True
            await until(client, Detached)
            session.abort()
            with pytest.raises(SessionClosedError):
                await client.session()
        assert client.state == Ended()
        assert not node.sessions


async def test_the_node_stops() -> None:
    """G9: with the node the client ends, whatever it was doing."""
    network = MemoryNetwork()
    for up in (True, False):
        async with Server(network, "server" if up else "nobody").up():
            async with STTNode(shared_seed="x", carriers=[Radio(network, "client")]) as node:
                client = node.reconnecting("server")
                await until(client, Connected if up else Waiting)
                before = anyio.current_time()
                await node.stop()
            assert anyio.current_time() - before < 1
            assert client.state == Ended()
            await client.aclose()
            with pytest.raises(StateError):
                node.reconnecting("server")
