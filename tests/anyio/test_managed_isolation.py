"""S8 over adapters, on both loops in virtual time: each session gets its own, and waits for no other (H4)."""

from __future__ import annotations

from collections import defaultdict
from random import Random
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stt_anyio import Session, STTNode
from stt_anyio.memory import MemoryNetwork
from tests.anyio.virtual import LOOPS, virtual


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return virtual(request.param)


SEED = b"s" * 16
TICK = 0.001
"""Seconds that timers are apart at most."""

Plan = list[list[tuple[float, int]]]
"""For each session its requests: when, and of how many bytes."""

plans = st.lists(
    st.lists(st.tuples(st.sampled_from((0.0, 0.0, 0.01, 0.5)), st.integers(1, 60_000)), min_size=1, max_size=3),
    min_size=2,
    max_size=4,
)


def payload(session: int, request: int, size: int) -> bytes:
    """What nobody else sends."""
    return f"{session}/{request}:".encode() + Random(1000 * session + request).randbytes(size)


class Talk:
    """All sessions of a plan at once; when each request was answered, and what came in on which session."""

    def __init__(self, plan: Plan, stalled: int | None) -> None:
        self.plan = plan
        self.stalled = stalled
        self.answered: dict[tuple[int, int], float] = {}
        self.came: defaultdict[bytes, list[bytes]] = defaultdict(list)
        self.ids: list[bytes] = []

    async def run(self) -> Talk:
        network, shared = MemoryNetwork(), {"tag": ""}
        async with (
            STTNode(shared_seed=SEED, carriers=[network.carrier("server")], server_mode=True) as server,
            STTNode(shared_seed=SEED, carriers=[network.carrier("client")]) as client,
            anyio.create_task_group() as tasks,
        ):
            sessions = []
            for number, _ in enumerate(self.plan):
                shared["tag"] = f"tag {number}"
                sessions.append(await client.session_manager.create_session("server", metadata=shared))
                theirs = await server.accept()
                if number != self.stalled:
                    tasks.start_soon(self.serve, theirs)
            self.ids = [session.session_id for session in sessions]
            begun = anyio.current_time()
            if self.stalled is not None:  # nobody there ever reads what is sent until there is no room for more
                tasks.start_soon(self.flood, sessions[self.stalled])
            async with anyio.create_task_group() as asking:
                for number, requests in enumerate(self.plan):
                    for index, (at, size) in enumerate(requests):
                        if number != self.stalled:
                            asking.start_soon(self.ask, sessions[number], number, index, begun, at, size)
            for number, session in enumerate(sessions):
                assert session.record is not None
                assert session.record.metadata == {"tag": f"tag {number}"}
                assert session.is_active()
            tasks.cancel_scope.cancel()
        return self

    async def serve(self, session: Session) -> None:
        async def answer(stream: Any) -> None:
            async with stream:
                request = b"".join([piece async for piece in stream])
                self.came[session.session_id].append(request)
                await stream.send(request[::-1])

        await session.serve(answer)

    async def flood(self, session: Session) -> None:
        stream = session.open_stream()
        while True:
            await stream.send(bytes(100_000))

    async def ask(self, session: Session, number: int, index: int, begun: float, at: float, size: int) -> None:
        await anyio.sleep(at)
        data = payload(number, index, size)
        async with session.open_stream() as stream:
            await stream.send(data)
            await stream.send_eof()
            assert b"".join([piece async for piece in stream]) == data[::-1]
        self.answered[number, index] = anyio.current_time() - begun


@given(plan=plans, stalled=st.integers(0, 3))
@settings(max_examples=10, deadline=None)
async def test_each_gets_its_own_while_one_stands_still(plan: Plan, stalled: int) -> None:
    """S8: what a session delivers was sent on it, each once; and where one is not read, the others are done as ever."""
    stalled %= len(plan)
    with_all = await Talk(plan, None).run()
    without = await Talk(plan, stalled).run()
    for talk in (with_all, without):
        for number, session_id in enumerate(talk.ids):
            sent = [payload(number, index, size) for index, (_, size) in enumerate(plan[number])]
            assert sorted(talk.came[session_id]) == sorted([] if number == talk.stalled else sent)
    assert without.answered.keys() == {key for key in with_all.answered if key[0] != stalled}
    for key, at in without.answered.items():
        assert abs(at - with_all.answered[key]) <= TICK, key
