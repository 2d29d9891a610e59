"""Both ways at once through a bad network: everything arrives, once, in order and unchanged.

What is damaged opens nothing (W-1, P-8), what comes twice counts once (P-7, S-5), what is lost goes again (R-4, R-9).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from queue import SimpleQueue

import anyio
import anyio.lowlevel
import pytest

from tests.anyio.bulk import HOSTS, LOOPBACK, End, Job, Result, dial, dial_blocking, serve, serve_blocking
from tests.anyio.relay import Direction, Faults, Relay
from tests.figures import RecordProperty, tell

MEGABYTE = 1_000_000
SHORT = Job(2 * MEGABYTE, seconds=120.0, seed=2)
LONG = Job(20 * MEGABYTE, seconds=600.0, seed=20)


def check(job: Job, relay: Relay, server: Result, client: Result, record_property: RecordProperty) -> None:
    """Intact on both sides, and the network was as bad as it should be."""
    assert server.sha256 == job.sha256("client")
    assert client.sha256 == job.sha256("server")
    assert server.reason == client.reason == "graceful"
    for tally in (relay.there, relay.back):
        assert min(tally.dropped, tally.duplicated, tally.reordered, tally.corrupted) > 0, tally
    seconds = max(server.seconds, client.seconds)
    tell(
        record_property,
        mb_each_way=job.size // MEGABYTE,
        seconds=seconds,
        mb_per_s_each_way=job.size / seconds / MEGABYTE,
        packets_lost=" and ".join(f"{end.packets_lost} of {end.packets_sent}" for end in (client, server)),
        there=relay.there,
        back=relay.back,
    )


async def test_intact(record_property: RecordProperty) -> None:
    results: dict[str, Result] = {}
    port, listening = 0, anyio.Event()

    def announce(number: int) -> None:
        nonlocal port
        port = number
        listening.set()

    async def be_server() -> None:
        results["server"] = await serve(SHORT, announce)

    with anyio.fail_after(SHORT.seconds):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(be_server)
            await listening.wait()
            with Relay((LOOPBACK, port), SHORT.seed, life=SHORT.seconds) as relay:
                client = await dial(SHORT, relay.address)
                await anyio.lowlevel.checkpoint()
    check(SHORT, relay, results["server"], client, record_property)


def test_intact_blocking(record_property: RecordProperty) -> None:
    """One thread for each direction, at either end."""
    port: SimpleQueue[int] = SimpleQueue()
    with ThreadPoolExecutor(1) as threads:
        server = threads.submit(serve_blocking, SHORT, port.put)
        with Relay((LOOPBACK, port.get(timeout=10)), SHORT.seed, life=SHORT.seconds) as relay:
            client = dial_blocking(SHORT, relay.address)
            check(SHORT, relay, server.result(SHORT.seconds), client, record_property)


@pytest.mark.long
@pytest.mark.parametrize("client", HOSTS)
@pytest.mark.parametrize("server", HOSTS)
def test_intact_in_all_pairings(server: str, client: str, record_property: RecordProperty) -> None:
    """Each end in a process of its own; the blocking one with a thread for each direction."""
    with End(server, LONG) as far, Relay((LOOPBACK, far.told()), LONG.seed, life=LONG.seconds) as relay:
        with End(client, LONG, relay.address) as near:
            ours, theirs = near.told(), far.told()
    check(LONG, relay, theirs, ours, record_property)


# -- the network itself --------------------------------------------------------------------------------------------


def test_a_direction_does_what_it_says() -> None:
    """The same every time; nothing lost but what was dropped, nothing changed but what was corrupted."""

    def run() -> tuple[Direction, list[bytes]]:
        direction, arrived = Direction(Faults(), "a seed"), list[bytes]()
        for number in range(10_000):
            direction.take(b"%05d" % number, arrived.append, now=0.0)
        direction.release(now=1.0)
        return direction, arrived

    direction, arrived = run()
    tally = direction.tally
    assert (direction.tally, arrived) == (run()[0].tally, run()[1])
    assert tally.taken == 10_000
    assert len(arrived) == tally.taken - tally.dropped + tally.duplicated
    for count, chance in ((tally.dropped, 500), (tally.reordered, 475), (tally.duplicated, 95), (tally.corrupted, 95)):
        assert 0.7 * chance < count < 1.3 * chance, tally
    sent = {b"%05d" % number for number in range(10_000)}
    changed = [datagram for datagram in arrived if datagram not in sent]
    assert 0.9 * tally.corrupted < len(changed) <= tally.corrupted + tally.duplicated
    whole = [int(datagram) for datagram in arrived if datagram in sent]
    backwards = sum(later < earlier for earlier, later in pairwise(whole))
    assert 0.7 * tally.reordered < backwards <= tally.reordered + tally.corrupted


def test_what_nothing_overtakes_goes_on_in_time() -> None:
    direction, arrived = Direction(Faults(drop=0, reorder=1, patience=0.5), "a seed"), list[bytes]()
    direction.take(b"alone", arrived.append, now=1.0)
    assert direction.next_release == 1.5
    direction.release(now=1.4)
    assert not arrived
    direction.release(now=1.5)
    assert arrived == [b"alone"]
    assert direction.next_release is None


def test_a_relay_ends_by_itself() -> None:
    with Relay((LOOPBACK, 9), seed=1, life=0.01) as relay:
        relay._thread.join(10)
        assert not relay._thread.is_alive()
