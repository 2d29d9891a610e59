"""The configuration of a node: every parameter, checked when it is made.

A mistake is one `ArgumentError` that names the parameter, the bad value and what is allowed. What a parameter of the
protocol may be is the core's to say (`stt_proto.Config`), so its default and its check are taken from there.

`STTNode(config=...)` takes a configuration as it is; without one the node makes its own, from the environment and the
defaults. Parameters given to `STTNode` by name come before either.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NoReturn

from attrs import Attribute, evolve, field, fields_dict, frozen

from stt_anyio.errors import ArgumentError
from stt_anyio.links.proxy import proxy_of
from stt_anyio.stores import SessionStore
from stt_proto import CarrierTraits, Config, Identity
from stt_proto.broadcast import BroadcastPolicy
from stt_proto.config import CARRIERS, Limits
from stt_proto.manager import ManagerLimits, SessionConfig
from stt_proto.recovery import CONTROLLERS, ControllerFactory

KIB = 1 << 10
MIB = 1 << 20

LARGEST_DATAGRAM = 65_507
"""Bytes of the largest UDP datagram: what IPv4 leaves."""
TRANSPORTS = ("udp", "tcp", "websocket")
"""What `transport` may be; carriers given to the node add their names to what `connect` takes."""
_OF_WEBSOCKETS = ("tls", "tls_cert", "tls_key", "proxy", "proxy_auth")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {
        "STT_PORT": "port",
        "STT_TRANSPORT": "transport",
        "STT_LOG_LEVEL": "log_level",
        "STT_RECV_BUFFER_SIZE": "recv_buffer_size",
        "STT_KEEP_ALIVE_INTERVAL": "keep_alive_interval",
    }
)
"""Variables of the environment and the parameters they set. `STT_SHARED_SEED`, and what watches a node (`STTQLOGDIR`,
`STTKEYLOGFILE`), are read by the node itself."""

_CORE = fields_dict(Config)
_Validator = Callable[[Any, "Attribute[Any]", Any], None]


def _refuse(name: str, value: object, allowed: str) -> NoReturn:
    raise ArgumentError(f"{name} is {value!r}; it must be {allowed}", argument=name)


def _of_the_core(name: str) -> Any:
    """A parameter of the protocol."""
    return field(default=_CORE[name].default, validator=_CORE[name].validator)


def _of(kind: type[SessionConfig | ManagerLimits], name: str) -> Any:
    """A parameter of each session, or a limit of their manager, under another name."""

    def check(_: Any, attribute: Attribute[Any], value: Any) -> None:
        try:
            kind(**{name: value})
        except ArgumentError as error:
            raise ArgumentError(attribute.name + error.message.removeprefix(name), argument=attribute.name) from None

    return field(default=fields_dict(kind)[name].default, validator=check)


def _whole(low: int, high: int) -> _Validator:
    def check(_: Any, attribute: Attribute[Any], value: Any) -> None:
        if type(value) is not int or not low <= value <= high:
            _refuse(attribute.name, value, f"a whole number from {low:,} to {high:,}")

    return check


def _whole_or_none(low: int, high: int) -> _Validator:
    def check(_: Any, attribute: Attribute[Any], value: Any) -> None:
        if value is not None and (type(value) is not int or not low <= value <= high):
            _refuse(attribute.name, value, f"None or a whole number from {low:,} to {high:,}")

    return check


def _one_of(*choices: str | None) -> _Validator:
    def check(_: Any, attribute: Attribute[Any], value: Any) -> None:
        if value not in choices:
            _refuse(attribute.name, value, "one of " + ", ".join(map(str, choices)))

    return check


def _check_flag(_: Any, attribute: Attribute[Any], value: Any) -> None:
    if not isinstance(value, bool):
        _refuse(attribute.name, value, "True or False")


def _check_reuse_port(_: Any, attribute: Attribute[Any], value: Any) -> None:
    _check_flag(_, attribute, value)
    if value and not hasattr(socket, "SO_REUSEPORT"):
        _refuse(attribute.name, value, "False on this system")


def _check_address(_: Any, attribute: Attribute[Any], value: Any) -> None:
    if not isinstance(value, str) or not value or any(character.isspace() for character in value):
        _refuse(attribute.name, value, "an address or the name of a host")


def _check_store(_: object, attribute: Attribute[Any], value: Any) -> None:
    if not isinstance(value, SessionStore | None):
        _refuse(attribute.name, value, "a SessionStore")


def _check_limits(_: Any, attribute: Attribute[Any], value: Any) -> None:
    if not isinstance(value, Limits):
        _refuse(attribute.name, value, "a stt_proto.Limits")


def _check_broadcast(_: Any, attribute: Attribute[Any], value: Any) -> None:
    if not isinstance(value, BroadcastPolicy):
        _refuse(attribute.name, value, "a BroadcastPolicy")


def _check_file(_: Any, attribute: Attribute[Any], value: Any) -> None:
    if value is not None and not (isinstance(value, str) and value and "\0" not in value):
        _refuse(attribute.name, value, "the path of a file or directory, or None")


def _text_of_path(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _check_congestion(_: Any, attribute: Attribute[Any], value: Any) -> None:
    if not callable(value) and value not in CONTROLLERS:
        _refuse(attribute.name, value, f"one of {', '.join(CONTROLLERS)}, or a factory of congestion controllers")


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, Iterable) else value


def _set(value: Any) -> Any:
    return frozenset(value) if isinstance(value, Iterable) else value


def _upper(value: Any) -> Any:
    return value.upper() if isinstance(value, str) else value


@frozen(kw_only=True)
class NodeConfig:
    """What a node is and how it behaves.

    Attributes:
        bind_address: the address to bind; an IPv6 address binds IPv6 only.
        port: the port to bind, 0 for any.
        transport: what the node binds, and what `connect` uses when it is not told: `"udp"`; `"tcp"` or `"websocket"`,
            which it listens for if it is started in server mode, and then has no UDP at all. A node on UDP has
            `listen_tcp` and `listen_websocket` beside it.
        reuse_port: let several processes share the port.
        recv_buffer_size: bytes of socket buffer to ask of the system for receiving; it may grant less.
        send_buffer_size: likewise for sending.
        datagram_size: bytes in a UDP datagram, 1,200 to 65,507. `None` begins with 1,200 and finds out what the way
            carries; a number is believed, and nothing larger is tried.
        offload: let the system cut and gather runs of UDP datagrams, where it can; False is one call a datagram.
        probe_udp: whether a session for which `connect` was given both UDP and a WebSocket looks for UDP while it is
            not on it: after 10 s, then ever more seldom, at last every 10 minutes.
        tls: with `"websocket"`: whether to listen for `wss://` and nothing else; needs `tls_cert`.
        tls_cert: the file with the certificate and those that lead to its authority, PEM.
        tls_key: the file with its key, if that is another one; not shown.
        proxy: with `"websocket"`: the HTTP proxy to dial through; not shown.
        proxy_auth: user and password for it, with a colon in between; not shown.
        keep_alive_interval: seconds of silence after which a sign of life is asked for.
        keep_alive_timeout: seconds of silence after which the peer is given up; more than twice the interval.
        handshake_timeout: seconds that a handshake may take.
        max_concurrent_sessions: sessions held at once.
        max_sessions_per_peer: sessions held at once with one peer.
        max_sessions_per_namespace: sessions held at once in one namespace.
        session_ttl: seconds that a session lives, 0.001 to ten years. It never ends in the middle of its work: as long
            as a stream is open or a request is tracked.
        session_sliding: whether each use of a session (a stream, a datagram, a request; no sign of life) begins that
            time anew; else it counts from the beginning of the session.
        max_requests_per_session: requests that may be in flight at once in a session.
        max_requests: in all sessions.
        max_concurrent_streams: streams of each kind that a peer may have open at once, in a session.
        default_max_frame_size: bytes that one stream puts into a packet while another waits, 1 to 65,536.
        stream_recv_buffer: bytes of one stream that may lie unread here at first.
        max_stream_recv_buffer: bytes to which that grows when the application reads faster than a long way can refill
            it; not at all when this is no more than `stream_recv_buffer`. So for the next two.
        stream_send_buffer: bytes of one stream that may wait here to be acknowledged at first.
        max_stream_send_buffer: bytes to which that grows when all of it is on its way and the peer takes more.
        session_recv_buffer: bytes of all streams of a session that may lie unread here at first; never more than half
            of the socket buffer that the system granted.
        max_session_recv_buffer: bytes to which that grows. All sessions together may grow by `limits.grown_windows`.
        max_datagram_size: the largest unreliable datagram taken, 0 for none.
        ack_delay: seconds that an acknowledgement may wait for company.
        no_delay: send small writes at once.
        detach_timeout: seconds that a session without a path waits for one.
        resumption_timeout: seconds that a ticket is good for; with less than 1 none is given, wanted or taken.
        fleet_secret: 32 random bytes that servers share which stand for one node (one `node_seed`): each takes the
            tickets of all, and takes them after a restart too. Random for each start when `None`.
        previous_fleet_secret: the one before, whose tickets are still taken.
        seed_generation: a number that goes into tickets; those with another are refused. Raise it when `shared_seed`
            changes.
        max_early_data: bytes that may come with a ticket before the first round trip, 0 (none) to 768: **replayable**,
            so only for what does no harm when it is done twice (`session.replayable`).
        ticket_file: a file in which this node, and no other, remembers which tickets were used, so that they are good
            once over restarts too. It has a use together with `fleet_secret`.
        ticket_store: a `SessionStore`, open as long as the node runs, in which all servers that take the same tickets
            remember which were used, so that each is good once for all of them. `STTNode` only; instead of
            `ticket_file`.
        rotate_after_seconds: age of a key at which it is replaced.
        rotate_after_bytes: bytes under a key at which it is replaced.
        rotate_after_packets: packets under a key at which it is replaced.
        application: a name that both sides must share; separates applications with one seed.
        suites: cipher suites, the preferred first: 1 AES-256-GCM, 2 ChaCha20-Poly1305.
        congestion: the congestion controller: `"cubic"`, `"newreno"` or `"bbr"`, or a factory of one's own.
        allow_self: whether a node may hold a session with itself; otherwise it does not answer its own calls.
        extension_frames: the application's own types of frames that are understood here, 0x80 to 0xff.
        reset_key: secret of the stateless reset, so that a restarted server can tell its old peers at once.
        limits: bounds on what peers can make this node hold.
        broadcast: how much of what is sent to many may wait for one of them, and what becomes of one that is slow.
        log_level: of the logger `stt`, set when the node starts; `None` leaves it alone.
        qlog_dir: a directory in which every session leaves qlog files; without one `STTQLOGDIR` names it, if it is set.
        keylog_file: a file to which the secrets of all sessions are appended, so that captures can be read; without one
            `STTKEYLOGFILE` names it, if it is set. Never outside of tests.

    Raises:
        ArgumentError: names the parameter, the value and what is allowed.
    """

    bind_address: str = field(default="0.0.0.0", validator=_check_address)
    port: int = field(default=0, validator=_whole(0, 65_535))
    transport: str = field(default="udp", validator=_one_of(*TRANSPORTS))
    reuse_port: bool = field(default=False, validator=_check_reuse_port)
    recv_buffer_size: int = field(default=2 * MIB, validator=_whole(4 * KIB, 1 << 30))
    send_buffer_size: int = field(default=2 * MIB, validator=_whole(4 * KIB, 1 << 30))
    datagram_size: int | None = field(default=None, validator=_whole_or_none(1200, LARGEST_DATAGRAM))
    offload: bool = field(default=True, validator=_check_flag)
    probe_udp: bool = field(default=True, validator=_check_flag)
    tls: bool = field(default=False, validator=_check_flag)
    tls_cert: str | None = field(default=None, converter=_text_of_path, validator=_check_file)
    tls_key: str | None = field(default=None, converter=_text_of_path, validator=_check_file, repr=False)
    proxy: str | None = field(default=None, repr=False)
    proxy_auth: str | None = field(default=None, repr=False)
    keep_alive_interval: float = _of_the_core("keep_alive_interval")
    keep_alive_timeout: float = _of_the_core("keep_alive_timeout")
    handshake_timeout: float = _of_the_core("handshake_timeout")
    max_concurrent_sessions: int = _of_the_core("max_concurrent_sessions")
    max_sessions_per_peer: int = _of(ManagerLimits, "sessions_per_peer")
    max_sessions_per_namespace: int = _of(ManagerLimits, "sessions_per_namespace")
    session_ttl: float = _of(SessionConfig, "ttl")
    session_sliding: bool = _of(SessionConfig, "sliding")
    max_requests_per_session: int = _of(SessionConfig, "max_requests")
    max_requests: int = _of(ManagerLimits, "requests")
    max_concurrent_streams: int = _of_the_core("max_concurrent_streams")
    default_max_frame_size: int = _of_the_core("default_max_frame_size")
    stream_recv_buffer: int = _of_the_core("stream_receive_window")
    max_stream_recv_buffer: int = _of_the_core("max_stream_receive_window")
    stream_send_buffer: int = _of_the_core("stream_send_buffer")
    max_stream_send_buffer: int = _of_the_core("max_stream_send_buffer")
    session_recv_buffer: int = _of_the_core("session_receive_window")
    max_session_recv_buffer: int = _of_the_core("max_session_receive_window")
    max_datagram_size: int = _of_the_core("max_datagram_size")
    ack_delay: float = _of_the_core("ack_delay")
    no_delay: bool = _of_the_core("no_delay")
    detach_timeout: float = _of_the_core("detach_timeout")
    resumption_timeout: float = _of_the_core("resumption_timeout")
    fleet_secret: bytes | None = field(default=None, repr=False, validator=_CORE["fleet_secret"].validator)
    previous_fleet_secret: bytes | None = field(
        default=None, repr=False, validator=_CORE["previous_fleet_secret"].validator
    )
    seed_generation: int = _of_the_core("seed_generation")
    max_early_data: int = _of_the_core("max_early_data")
    ticket_file: str | None = field(default=None, converter=_text_of_path, validator=_check_file)
    ticket_store: SessionStore | None = field(default=None, validator=_check_store)
    rotate_after_seconds: float = _of_the_core("rotate_after_seconds")
    rotate_after_bytes: int = _of_the_core("rotate_after_bytes")
    rotate_after_packets: int = _of_the_core("rotate_after_packets")
    application: str = _of_the_core("application")
    suites: tuple[int, ...] = field(
        default=_CORE["suites"].default, converter=_tuple, validator=_CORE["suites"].validator
    )
    congestion: str | ControllerFactory = field(default=_CORE["congestion"].default, validator=_check_congestion)
    allow_self: bool = _of_the_core("allow_self")
    extension_frames: frozenset[int] = field(
        default=frozenset(), converter=_set, validator=_CORE["extension_frames"].validator
    )
    reset_key: bytes | None = field(default=None, repr=False, validator=_CORE["reset_key"].validator)
    limits: Limits = field(factory=Limits, validator=_check_limits)
    broadcast: BroadcastPolicy = field(factory=BroadcastPolicy, validator=_check_broadcast)
    log_level: str | None = field(default=None, converter=_upper, validator=_one_of(None, *LOG_LEVELS))
    qlog_dir: str | None = field(default=None, converter=_text_of_path, validator=_check_file)
    keylog_file: str | None = field(default=None, converter=_text_of_path, validator=_check_file)

    def __attrs_post_init__(self) -> None:
        if self.transport != "websocket":
            for name in _OF_WEBSOCKETS:  # and the error does not quote it: it may be a password
                if getattr(self, name) not in (None, False):
                    raise ArgumentError(
                        f"{name} must be {fields_dict(NodeConfig)[name].default}: transport {self.transport!r} has no "
                        "use for it",
                        argument=name,
                    )
        if self.tls != (self.tls_cert is not None) or (self.tls_key is not None and not self.tls):
            raise ArgumentError("tls and tls_cert must be given together, or neither", argument="tls")
        if self.ticket_file is not None and self.ticket_store is not None:
            raise ArgumentError("ticket_store and ticket_file: one of them remembers", argument="ticket_store")
        if self.proxy is not None or self.proxy_auth is not None:
            proxy_of(self.proxy, self.proxy_auth)
        if self.keep_alive_timeout <= 2 * self.keep_alive_interval:
            _refuse(
                "keep_alive_timeout",
                self.keep_alive_timeout,
                f"more than twice keep_alive_interval, which is {self.keep_alive_interval:g} seconds",
            )

    # -- ready-made ------------------------------------------------------------------------------------------------

    @classmethod
    def low_latency(cls, **parameters: Any) -> NodeConfig:
        """For games, voice and remote control: small frames, short queues, early acknowledgements."""
        return cls(**{**_LOW_LATENCY, **parameters})

    @classmethod
    def high_throughput(cls, **parameters: Any) -> NodeConfig:
        """For bulk: large frames and buffers, few streams."""
        return cls(**{**_HIGH_THROUGHPUT, **parameters})

    @classmethod
    def balanced(cls, **parameters: Any) -> NodeConfig:
        """For everything else: the defaults."""
        return cls(**parameters)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None, **parameters: Any) -> NodeConfig:
        """What the environment says, except for the parameters given here.

        `STT_PORT`, `STT_TRANSPORT`, `STT_LOG_LEVEL`, `STT_RECV_BUFFER_SIZE` and `STT_KEEP_ALIVE_INTERVAL` are read.

        Args:
            environ: the environment; that of the process when `None`.
            parameters: what does not follow it.

        Raises:
            ArgumentError: also for a variable that does not parse; it is named.
        """
        environ = os.environ if environ is None else environ
        found: dict[str, Any] = {}
        for variable, name in ENVIRONMENT.items():
            text = environ.get(variable)
            if text is not None and name not in parameters:
                found[name] = _parsed(variable, name, text)
        return cls(**found, **parameters)

    # -- for the core ----------------------------------------------------------------------------------------------

    def core_config(self, identity: Identity, shared_seed: bytes | str, **changes: Any) -> Config:
        """The configuration of the endpoint.

        Args:
            identity: who the node is.
            shared_seed: who may talk to it.
            changes: fields of `stt_proto.Config` that are to be otherwise.
        """
        parameters: dict[str, Any] = {_CORE_NAMES.get(name, name): getattr(self, name) for name in _SHARED}
        parameters["carriers"] = {"udp": self.udp_traits(never_cut=False)}
        parameters["ticket_check"] = "memory" if self.ticket_file is None and self.ticket_store is None else "host"
        return Config(identity=identity, shared_seed=shared_seed, **(parameters | changes))

    def session_config(self) -> SessionConfig:
        """How sessions are treated of which nobody says anything else."""
        return SessionConfig(
            ttl=self.session_ttl, sliding=self.session_sliding, max_requests=self.max_requests_per_session
        )

    def manager_limits(self) -> ManagerLimits:
        """How much the manager of sessions holds.

        The core sees to it that no more are live than may be; here there is room for as many that are over while
        requests of theirs are in flight.
        """
        return ManagerLimits(
            sessions=min(2 * self.max_concurrent_sessions, 1 << 24),
            sessions_per_peer=self.max_sessions_per_peer,
            sessions_per_namespace=self.max_sessions_per_namespace,
            requests=self.max_requests,
        )

    def udp_traits(self, *, never_cut: bool) -> CarrierTraits:
        """What the core must know of UDP, as this node uses it.

        Args:
            never_cut: whether datagrams that are too large for the way vanish, instead of being cut into fragments
                that nobody notices; only then it can be found out what the way carries.
        """
        udp, size = CARRIERS["udp"], self.datagram_size
        if size is not None:
            return evolve(udp, max_packet=size)
        return evolve(udp, max_probe=LARGEST_DATAGRAM if never_cut else None)


_LOW_LATENCY: Mapping[str, Any] = MappingProxyType(
    {
        "default_max_frame_size": 4 * KIB,
        "recv_buffer_size": 512 * KIB,
        "send_buffer_size": 512 * KIB,
        "stream_recv_buffer": 512 * KIB,
        "stream_send_buffer": 512 * KIB,
        "ack_delay": 0.01,
        "no_delay": True,
    }
)
_HIGH_THROUGHPUT: Mapping[str, Any] = MappingProxyType(
    {
        "default_max_frame_size": 64 * KIB,
        "recv_buffer_size": 8 * MIB,
        "send_buffer_size": 8 * MIB,
        "stream_recv_buffer": 8 * MIB,
        "max_stream_recv_buffer": 32 * MIB,
        "stream_send_buffer": 8 * MIB,
        "max_stream_send_buffer": 32 * MIB,
        "session_recv_buffer": 8 * MIB,
        "max_session_recv_buffer": 48 * MIB,
        "max_concurrent_streams": 64,
        "ack_delay": 0.1,
    }
)

_CORE_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "stream_recv_buffer": "stream_receive_window",
        "max_stream_recv_buffer": "max_stream_receive_window",
        "session_recv_buffer": "session_receive_window",
        "max_session_recv_buffer": "max_session_receive_window",
    }
)
"""Where the documented name of a parameter differs from the core's."""
_SHARED = tuple(name for name in fields_dict(NodeConfig) if _CORE_NAMES.get(name, name) in _CORE)


def _parsed(variable: str, name: str, text: str) -> Any:
    """A value out of the environment, of the type that its parameter has."""
    kind = type(fields_dict(NodeConfig)[name].default)
    if kind not in (int, float):
        return text
    try:
        return kind(text)
    except ValueError:
        raise ArgumentError(
            f"{name} is {text!r} in the environment ({variable}); it must be a number", argument=name
        ) from None
