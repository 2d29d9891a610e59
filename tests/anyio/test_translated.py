"""Between real sockets, behind a translator of addresses that forgets everybody again and again (C8, E8).

In virtual time, and in all kinds of weather: `tests/proto/test_rebinding.py`.
"""

from __future__ import annotations

import pytest

from tests.anyio.bulk import HOSTS, LOOPBACK, End, Job
from tests.anyio.relay import PERFECT, Relay
from tests.figures import RecordProperty, tell

MEGABYTE = 1_000_000
LONG = pytest.mark.long


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(
    ("megabytes", "rebind"), [(20, {"rebind_after": 3000}), pytest.param(200, {"rebind": 1.0}, marks=LONG)]
)
def test_another_port_again_and_again(
    host: str, megabytes: int, rebind: dict[str, float], record_property: RecordProperty
) -> None:
    """M-5: so much each way at once, while the client comes from another port, in the long one every second."""
    job = Job(megabytes * MEGABYTE, seconds=60.0, seed=megabytes, datagram_size=1472)
    with End(host, job) as far, Relay((LOOPBACK, far.told()), 1, PERFECT, job.seconds, **rebind) as relay:
        with End(host, job, relay.address) as near:
            ours, theirs = near.told(), far.told()
    assert theirs.sha256 == job.sha256("client")
    assert ours.sha256 == job.sha256("server")
    assert ours.reason == theirs.reason == "graceful"
    assert relay.rebound >= 2
    tell(
        record_property,
        mb_each_way=megabytes,
        seconds=ours.seconds,
        ports=relay.rebound + 1,
        packets_lost=" and ".join(f"{end.packets_lost} of {end.packets_sent}" for end in (ours, theirs)),
    )
