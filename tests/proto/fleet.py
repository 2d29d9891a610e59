"""Several endpoints behind one address, without a network: who gets a datagram first is the test's to say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from attrs import define, evolve

from stt_proto import Config, Endpoint, Identity, NetworkPath, Session, WorkerIds
from stt_proto.events import Event
from stt_proto.testing import SeededEntropy
from stt_proto.types import Stray

SECRET = bytes(range(100, 132))
SERVER = ("server", 1)
STEP = 0.001

Router = Callable[[bytes], int]


def by_kernel(ids: WorkerIds, datagram: bytes) -> int:
    """Who is to get a datagram (C-8), as a second reading of the text has it."""
    if not datagram[0] & 0x80:
        at = 1
    elif datagram[0] & 0x0F in (1, 8):
        at = 17
    else:
        at = 9
    name = datagram[at : at + 8]
    return ids.worker_of(name) if len(name) == 8 else 0


@define
class Client:
    """One that dials, from whichever address it has at the moment."""

    endpoint: Endpoint
    address: Any

    @property
    def path(self) -> NetworkPath:
        return NetworkPath("udp", self.address, SERVER)


class Fleet:
    """Workers, and clients of theirs.

    Attributes:
        now: seconds.
        workers: the endpoints.
        router: who gets a datagram; at first those whose it is.
        handed: every stray, in order.
        events: of the workers, in order.
    """

    def __init__(self, count: int, **changes: Any) -> None:
        self.now = 0.0
        self.ids = [WorkerIds(SECRET, index, count) for index in range(count)]
        self.config = Config(
            identity=Identity.from_seed(bytes(range(32))),
            shared_seed="between us",
            fleet_secret=SECRET,
            reset_key=bytes(32),
            **changes,
        )
        self.workers = [self.worker(index) for index in range(count)]
        self.clients: list[Client] = []
        self.router: Router = lambda datagram: by_kernel(self.ids[0], datagram)
        self.handed: list[Stray] = []
        self.events: list[tuple[int, Event]] = []
        self.lives = 0

    def worker(self, index: int, life: int = 0) -> Endpoint:
        return Endpoint(
            evolve(self.config, worker_ids=self.ids[index]),
            now=self.now,
            unix_time=1.7e9 + self.now,
            entropy=SeededEntropy(f"worker {index} {life}"),
        )

    def move(self, client: Client, address: Any, *sessions: Session) -> None:
        """Sessions go to another address, and give up the one before."""
        client.address = address
        for session in sessions:
            session.migrate(client.path, self.now)
        self.wait(1.0)
        for session in sessions:
            for info in session.paths:
                if info.path != client.path:
                    session.remove_path(info.path, self.now)
        self.wait(1.0)

    def restart(self, index: int) -> None:
        """A worker dies without a word, and another takes its place."""
        self.lives += 1
        self.workers[index] = self.worker(index, self.lives)

    def client(self, name: str, **changes: Any) -> Client:
        seed = SeededEntropy(f"{name} seed")(32)
        config = Config(identity=Identity.from_seed(seed), shared_seed="between us", **changes)
        endpoint = Endpoint(config, now=self.now, unix_time=1.7e9, entropy=SeededEntropy(name))
        self.clients.append(Client(endpoint, (name, 1)))
        return self.clients[-1]

    def dial(self, client: Client, **options: Any) -> Session:
        session = client.endpoint.connect(client.path, now=self.now, **options)
        self.run(lambda: session.is_active() or session.is_closed)
        return session

    def run(self, until: Callable[[], bool], most: float = 60.0) -> None:
        """Let time pass until something is so."""
        end = self.now + most
        while not until():
            assert self.now < end, "it never happened"
            self.step()

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        self.run(lambda: self.now >= end)

    def step(self) -> None:
        self.now += STEP
        for client in self.clients:
            client.endpoint.tick(self.now)
            for transmit in client.endpoint.transmits(self.now):
                for datagram in transmit.datagrams():
                    self.to_server(datagram, NetworkPath("udp", SERVER, client.address))
        for index, worker in enumerate(self.workers):
            worker.tick(self.now)
            for transmit in worker.transmits(self.now):
                for client in self.clients:
                    if client.address == transmit.path.remote:
                        for datagram in transmit.datagrams():
                            client.endpoint.receive(datagram, client.path, self.now)
            self.events += [(index, event) for _, event in worker.events()]

    def to_server(self, datagram: bytes, path: NetworkPath, ecn: int = 0) -> None:
        """A datagram arrives; what its first worker gives out is handed over, once."""
        first = self.router(datagram)
        self.workers[first].receive(datagram, path, self.now, None, ecn)
        for stray in self.workers[first].strays():
            self.handed.append(stray)
            others = [index for index in range(len(self.workers)) if index != first]
            for index in others if stray.worker is None else [stray.worker]:
                self.workers[index].receive(stray.datagram, stray.path, self.now, None, stray.ecn)
                for _ in self.workers[index].strays():
                    assert stray.worker is None, "what names a worker is its own"

    def served_by(self) -> list[int]:
        """How many sessions each has."""
        return [len(worker.sessions) for worker in self.workers]
