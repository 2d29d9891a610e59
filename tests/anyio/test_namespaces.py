"""Two machines, as far as the kernel goes: what happens to their cable and addresses happens to real ones (C8, P-19).

Each end is a process of its own in a network namespace, and bytes go both ways at once. The cable is slow enough that a
transfer takes longer than the commands that change something.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.anyio.bulk import HOSTS, Job, Result
from tests.anyio.namespaces import LIMIT, ROOT, Namespace, NotPermittedError, Program, namespaces, tool
from tests.figures import RecordProperty, tell

MEGABYTE = 1_000_000
MBIT = 50
LINK, BEYOND = "link0", "link1"
CLIENT, SERVER, ROUTER, OTHERS = "192.0.2.1", "192.0.2.2", "192.0.2.254", [f"192.0.2.{77 + n}" for n in range(10)]
FAR_SERVER, FAR_ROUTER = "198.51.100.2", "198.51.100.254"
MTU, LOWER = 1500, 1280
IP_AND_UDP = 28

Change = Callable[[], None]


@pytest.fixture
def pair() -> Iterator[list[Namespace]]:
    """A client and a server, with a cable."""
    with namespaces(2, MBIT) as (client, server):
        address(client, CLIENT)
        address(server, SERVER)
        yield [client, server]


@pytest.fixture
def trio_of_machines() -> Iterator[list[Namespace]]:
    """A client, a router, and a server behind it."""
    with namespaces(3, MBIT) as (client, router, server):
        address(client, CLIENT)
        address(router, ROUTER)
        address(router, FAR_ROUTER, BEYOND)
        address(server, FAR_SERVER, BEYOND)
        client.run("ip", "route", "add", "default", "via", ROUTER)
        server.run("ip", "route", "add", "default", "via", FAR_ROUTER)
        router.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
        yield [client, router, server]


def address(place: Namespace, new: str, link: str = LINK, old: str = "") -> None:
    """Give an interface another address."""
    remove = f"ip address del {old}/24 dev {link} && " if old else ""
    place.run("sh", "-c", f"{remove}ip address add {new}/24 dev {link}")


def transfer(machines: list[Namespace], host: str, job: Job, *meanwhile: Change) -> tuple[Result, Result]:
    """From the first machine to the last and back at once; each of these happens in mid-transfer, evenly spread.

    Returns:
        what the client and the server saw.
    """
    client, server, to = machines[0], machines[-1], SERVER if len(machines) == 2 else FAR_SERVER
    deadline, part = time.monotonic() + job.seconds, job.size // (len(meanwhile) + 1)
    with Program(server, host, job) as far, Program(client, host, job, (to, far.told())) as near:
        sent = client.sent(LINK)
        for happens in meanwhile:
            while client.sent(LINK) < sent + part:
                assert near.runs
                assert time.monotonic() < deadline
                time.sleep(0.001)
            happens()
            sent = client.sent(LINK)
        ours, theirs = near.result(), far.result()
        assert client.sent(LINK) - sent > part // 10, "the last of them happened in mid-transfer"
    assert ours.sha256 == job.sha256("server")
    assert theirs.sha256 == job.sha256("client")
    assert ours.reason == theirs.reason == "graceful"
    return ours, theirs


def told(record_property: RecordProperty, *ends: Result) -> None:
    for end in ends:
        tell(
            record_property,
            seconds=end.seconds,
            packets_lost=f"{end.packets_lost} of {end.packets_sent}",
            mtu=end.mtu,
            black_holes=end.black_holes,
        )


@pytest.mark.parametrize("host", HOSTS)
def test_the_address_of_the_client_changes(pair: list[Namespace], host: str, record_property: RecordProperty) -> None:
    """C8, M-5: in mid-transfer the address goes and there is another; no byte is lost or repeated."""
    job = Job(6 * MEGABYTE, seconds=30.0, seed=3, bind="0.0.0.0")
    told(record_property, *transfer(pair, host, job, partial(address, pair[0], OTHERS[0], old=CLIENT)))


@pytest.mark.parametrize("host", HOSTS)
def test_the_mtu_of_the_cable_is_lowered(pair: list[Namespace], host: str, record_property: RecordProperty) -> None:
    """P-20: in mid-transfer datagrams of the size that was found become too large, and none may be cut."""

    def lower() -> None:
        for end in pair:
            end.run("ip", "link", "set", LINK, "mtu", LOWER)

    ends = transfer(pair, host, Job(6 * MEGABYTE, seconds=30.0, seed=4, bind="0.0.0.0"), lower)
    told(record_property, *ends)
    for end in ends:
        before, after = end.mtu
        assert LOWER < before <= MTU - IP_AND_UDP
        assert 1200 <= after <= LOWER - IP_AND_UDP


@pytest.mark.long
@pytest.mark.parametrize("host", HOSTS)
def test_the_mtu_behind_a_router_is_lowered(
    trio_of_machines: list[Namespace], host: str, record_property: RecordProperty
) -> None:
    """P-19, P-20: only the router sees that they are too large, and what it says of it (ICMP) is not believed."""
    _, router, server = trio_of_machines

    def lower() -> None:
        router.run("ip", "link", "set", BEYOND, "mtu", LOWER)
        server.run("ip", "link", "set", BEYOND, "mtu", LOWER)

    ends = transfer(trio_of_machines, host, Job(20 * MEGABYTE, seconds=60.0, seed=5, bind="0.0.0.0"), lower)
    told(record_property, *ends)
    for end in ends:
        before, after = end.mtu
        assert LOWER < before <= MTU - IP_AND_UDP
        assert 1200 <= after <= LOWER - IP_AND_UDP
    assert ends[0].black_holes == 1, "nobody on its own machine told the client"


@pytest.mark.long
@pytest.mark.parametrize("host", HOSTS)
def test_ten_addresses(pair: list[Namespace], host: str, record_property: RecordProperty) -> None:
    """C8, M-5: one after the other, during 40 MB each way."""
    changes = [
        partial(address, pair[0], new, old=old) for old, new in zip([CLIENT, *OTHERS], OTHERS, strict=False)
    ]  # fmt: skip
    told(record_property, *transfer(pair, host, Job(40 * MEGABYTE, 60.0, seed=6, bind="0.0.0.0"), *changes))


@pytest.mark.long
@pytest.mark.parametrize(("host", "seconds"), [*((host, 5.0) for host in HOSTS), ("asyncio", 60.0), ("blocking", 60.0)])
def test_the_cable_is_out(pair: list[Namespace], host: str, seconds: float, record_property: RecordProperty) -> None:
    """C9: for so long there is no network at all, and then it comes with another address; 60 s are beyond patience."""
    client = pair[0]

    def pull() -> None:
        client.run("ip", "link", "set", LINK, "down")
        before = client.sent(LINK)
        time.sleep(seconds)
        assert client.sent(LINK) == before
        address(client, OTHERS[0], old=CLIENT)
        client.run("ip", "link", "set", LINK, "up")

    ends = transfer(pair, host, Job(10 * MEGABYTE, 60.0 + 2 * seconds, seed=7, bind="0.0.0.0"), pull)
    told(record_property, *ends)
    assert seconds < ends[0].seconds < seconds + 30.0


# -- the network itself --------------------------------------------------------------------------------------------

KILLED = """
import os, signal
from tests.anyio.namespaces import namespaces
with namespaces(2, 1) as made:
    print(*(place.pid for place in made), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_nothing_is_left_of_a_test_that_was_killed(pair: list[Namespace]) -> None:
    """The processes that hold the namespaces end with the test, and the kernel takes the rest away."""
    killed = subprocess.run([sys.executable, "-c", KILLED], cwd=ROOT, capture_output=True, timeout=LIMIT, check=False)
    holders = [int(pid) for pid in killed.stdout.split()]
    assert len(holders) == 2
    give_up = time.monotonic() + LIMIT
    while any(Path(f"/proc/{pid}/ns/net").exists() for pid in holders):
        assert time.monotonic() < give_up
        time.sleep(0.01)
    here = Path("/proc/net/dev").read_text()
    assert LINK not in here, "the cable was never seen outside"


def test_a_command_that_fails_is_told(pair: list[Namespace]) -> None:
    with pytest.raises(NotPermittedError, match="ip link del link7"):
        pair[0].run("ip", "link", "del", "link7")
    with pytest.raises(NotPermittedError, match="there is no"):
        tool("no-such-tool")


def test_for_a_user_without_rights() -> None:
    """Where the system lets users have namespaces; two of them, that are nobody else's."""
    with namespaces(2, MBIT, rights=False) as made:
        inside = {os.readlink(f"/proc/{place.pid}/ns/net") for place in made}
        users = {os.readlink(f"/proc/{place.pid}/ns/user") for place in made}
        assert len(inside - {os.readlink("/proc/self/ns/net")}) == 2
        assert len(users - {os.readlink("/proc/self/ns/user")}) == 1
        address(made[0], CLIENT)
