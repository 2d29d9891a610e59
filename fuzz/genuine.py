"""Seeds that are genuine: every frame, parameter and message, made by the project itself. `seeds` writes them."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz import fuzz_messages, fuzz_tickets
from fuzz.harness import Choices, Seeds, packed, program
from fuzz.peers import (
    BEGIN,
    CONFIG,
    PARAMETERS,
    challenge_from,
    make_endpoint,
    make_initiator,
    make_responder,
    message_in,
    path_of,
    send_all,
)
from stt_proto.config import Config
from stt_proto.identity import encode_node_key
from stt_proto.session.engines import local_parameters
from stt_proto.types import CloseReason
from stt_proto.wire import (
    MAX_STREAM_COUNT,
    MAX_VARINT,
    Ack,
    AckFrequency,
    Confirm,
    DataBlocked,
    Datagram,
    Expired,
    Extension,
    Frame,
    KeepAlive,
    KeepAliveAck,
    MaxData,
    MaxStreamData,
    MaxStreams,
    Message,
    MessageType,
    NewConnectionId,
    Padding,
    Parameters,
    PathChallenge,
    PathResponse,
    Ping,
    Priority,
    Refused,
    ResetStream,
    RetireConnectionId,
    Retry,
    Rotate,
    SessionClose,
    StopSending,
    Stream,
    StreamDataBlocked,
    StreamOpen,
    StreamsBlocked,
    VersionList,
    encode_datagram,
    encode_varint,
)

FRAMES: tuple[Frame, ...] = (
    Padding(20),
    Ping(),
    Ack(0, 0, 0, ((0, 0),)),
    Ack(1000, 3125, 2, ((990, 1000), (500, 980), (3, 7)), (5, 0, 1)),
    Ack(200, 1, 0, tuple((number, number) for number in range(200, 72, -2))),
    ResetStream(0, 7, 1000),
    StopSending(4, 1 << 40),
    KeepAlive(b"question"),
    KeepAliveAck(b"question"),
    Stream(0, 0, b"a request"),
    Stream(3, 1 << 20, b"x" * 200, True),
    Stream(5, MAX_VARINT, b"", True),
    MaxData(1 << 24),
    MaxStreamData(8, 1 << 20),
    MaxStreams(True, 300),
    MaxStreams(False, MAX_STREAM_COUNT),
    DataBlocked(4096),
    StreamDataBlocked(0, 70_000),
    StreamsBlocked(True, 8),
    StreamsBlocked(False, 0),
    NewConnectionId(1, 0, b"connctID", b"its reset token."),
    NewConnectionId(300, 299, b"connctID", b"its reset token."),
    RetireConnectionId(0),
    PathChallenge(b"question"),
    PathResponse(b"question"),
    SessionClose(0, CloseReason.GRACEFUL),
    SessionClose(0x0401, CloseReason.ERROR, "nöt a graceful énd"),
    Confirm(),
    StreamOpen(0, "purpose"),
    StreamOpen(1 << 30, "ü" * 127),
    Datagram(b"a datagram"),
    Priority(4, 0, False),
    Priority(1 << 40, 7, True),
    Expired(4, 1 << 20),
    AckFrequency(3, 256, 25_000),
    Extension(0x80, 0, b""),
    Extension(0xFF, 70, b"x" * 100),
    Rotate(1, b"an X25519 public key of 32 bytes"),
)


def frames() -> Seeds:
    """Every frame alone, and some packets."""
    seeds = {f"{number:02}-{type(frame).__name__}": frame.encode() for number, frame in enumerate(FRAMES)}
    seeds["all"] = b"".join(frame.encode() for frame in FRAMES[1:10]) + b"\x0c\x04\x05to the end"
    seeds["datagram-to-the-end"] = Ping().encode() + b"\x30" + b"d" * 30
    seeds["long-varints"] = b"\x10\xc0\0\0\0\0\0\0\1\x11\x40\1\x80\0\0\2"
    seeds["no-utf-8"] = b"\x1e\x00\x04\xff\xfe\xc3\x28\x1c\x00\x02\x02\xff\xff"
    seeds["unknown"] = Ping().encode() + b"\x20"
    seeds["reserved-bits"] = b"\x24\x04\x10"
    seeds["threshold-0"] = b"\x26\x01\x00\x05"
    seeds["extension-too-long"] = b"\x80\x00\x44\x01" + b"x" * 1025
    return seeds


def parameters() -> Seeds:
    """What we announce, limits, and what is not known."""
    seeds = {
        "default": Parameters().encode(),
        "peer": PARAMETERS.encode(),
        "largest": Parameters(
            MAX_VARINT, MAX_VARINT, 1 << 60, 1 << 60, 65_535, 16_383, 65_535, 64, 86_400_000, 16
        ).encode(),
        "smallest": Parameters(1, 1, 1, 1, 1, 0, 1201, 2, 100, 3).encode(),
        "extensions": Parameters(extension_frames=frozenset({0x20, 0x80, 0xFF})).encode(),
        "all-extensions": Parameters(extension_frames=frozenset(range(256))).encode(),
        "unknown": encode_varint(0x1234) + b"\x03abc" + PARAMETERS.encode(),
        "twice": b"\x01\x01\x05\x01\x01\x05",
        "unknown-twice": b"\x3f\x00\x3f\x00",
        "two-values": b"\x01\x02\x05\x05",
        "cut": PARAMETERS.encode()[:-1],
        "no-value": b"\x01\x00",
        "long-varint": b"\x40\x01\x40\x08\xc0\0\0\0\0\0\0\5",
    }
    seeds["ours"] = local_parameters(Config(identity=CONFIG.identity, shared_seed=CONFIG.shared_seed)).encode()
    for number, (low, high) in {3: (0, 1 << 60), 6: (0, 16_383), 7: (1200, 65_535), 8: (1, 64), 10: (2, 16)}.items():
        for name, value in ("below", low - 1), ("above", high + 1):
            if value >= 0:
                encoded = encode_varint(value)
                seeds[f"{number}-{name}"] = encode_varint(number) + encode_varint(len(encoded)) + encoded
    return seeds


def genuine_messages(suite: int) -> Iterator[tuple[str, bytes]]:
    """Every datagram of every message, with a suite."""
    path = path_of()
    initiator = make_initiator(suite, "udp", shared_seed=b"another seed")
    (hello,) = initiator.take(BEGIN)
    yield "hello", hello
    message = message_in([hello])
    challenge = challenge_from(make_responder(suite), hello, path).half_open.datagrams
    yield from ((f"challenge-{index}", datagram) for index, datagram in enumerate(challenge))
    initiator.on_message(message_in(challenge), BEGIN)
    initiator.tick(BEGIN + 5)
    yield "abort", initiator.take(BEGIN + 5)[0]
    endpoint = make_endpoint()
    initiator = make_initiator(suite, "udp")
    endpoint.receive(initiator.take(BEGIN)[0], path, BEGIN)
    initiator.on_message(message_in(send_all(endpoint, BEGIN)), BEGIN)
    yield "proof", initiator.take(BEGIN)[0]
    hash16 = bytes(range(16))
    for kind, body in (
        (MessageType.RETRY, Retry(hash16, b"cookie")),
        (MessageType.REFUSED, Refused(hash16, 0x0203)),
        (MessageType.VERSION, VersionList(hash16, (1,), (1, 2))),
    ):
        yield kind.name.lower(), encode_datagram(Message(kind, message.scid, message.dcid, body.encode()))
    run = fuzz_tickets.begin(Choices(b""))
    fuzz_tickets.give(run, Choices(bytes((suite - 1,))))
    fuzz_tickets.dial(run, Choices(b""))
    yield "resume", run.resumes[0][1]
    fuzz_tickets.resume(run, Choices(b""))
    yield "resumed", run.answers[0][0]


def messages() -> Seeds:
    """Datagrams as they are, with a check to be made, and bodies."""
    seeds = {}
    for suite in (1, 2):
        for name, datagram in genuine_messages(suite):
            seeds[f"{suite}-{name}"] = program(fuzz_messages.DATAGRAM, datagram)
            if suite == 1:
                seeds[f"{suite}-{name}-checked"] = program(fuzz_messages.CHECKED, datagram)
            if not name.startswith("challenge"):
                message = message_in([datagram])
                padded = message.type in (MessageType.HELLO, MessageType.RESUME)
                body = message.body.rstrip(b"\0") + b"\0" if padded else message.body
                seeds[f"{suite}-{name}-body"] = program(2 + message.type, body)
    challenge = message_in([datagram for name, datagram in genuine_messages(1) if name.startswith("challenge")])
    seeds["1-challenge-body"] = program(2 + challenge.type, challenge.body)
    one = program(1, b"d", b"s", packed(b"body of a message " * 5), 3, 0, 20)
    taken = program(1, 0, 1, 1)  # unharmed, over the first path, from a reliable carrier, and nothing is forgotten
    for name, picks in ("in-order", range(24)), ("reversed", range(24, -1, -1)), ("repeated", (0, 0, 1, 1, 2, 2, 1)):
        first, *rest = (program(pick, taken) for pick in picks)
        seeds[f"pieces-{name}"] = program(fuzz_messages.PIECES, one, first, *(program(1, piece) for piece in rest))
    others = (program(0, 1, bytes((number,)), one[2:], 0, taken) for number in range(12))
    seeds["pieces-of-many"] = program(fuzz_messages.PIECES, one, 0, taken, *others)
    return seeds


TEXTS: dict[str, tuple[int, str | bytes]] = {
    "host": (0, "udp://example.org:4433"),
    "ipv4": (0, "udp://192.0.2.1:0/"),
    "ipv6": (0, "udp://[2001:db8::1]:4433"),
    "zone": (0, "udp://[fe80::1%eth0]:65535"),
    "port": (0, "udp://h:65536"),
    "scheme": (0, "https://example.org"),
    "bare-ipv6": (0, "udp://::1:4433"),
    "empty-brackets": (0, "udp://[]:1"),
    "no-utf-8": (0, b"udp://\xff\xfe:1"),
    "unicode-digits": (0, "udp://h:٤٤"),
    "node-id": (1, "0123456789abcdefABCDEF" + "0" * 42),
    "node-id-short": (1, "0" * 63),
    "node-id-newline": (1, "0" * 64 + "\n"),
    "key": (2, encode_node_key(bytes(range(32)))),
    "key-long": (2, encode_node_key(bytes(range(64)))),
    "key-crlf": (2, encode_node_key(bytes(32)).rstrip("\n") + "\r\n"),
    "key-cut": (2, encode_node_key(bytes(32))[:-3]),
    "key-two-lines": (2, encode_node_key(bytes(32)) * 2),
    "seed": (3, "correct horse battery staple"),
    "seed-newline": (3, "passphrase\n"),
    "seed-crlf": (3, b"passphrase\r\n"),
    "seed-two-newlines": (3, "passphrase\n\n"),
    "seed-composed": (3, "cafe\u0301"),
    "seed-surrogate": (3, b"\xed\xa0\x80"),
    "seed-empty": (3, "\n"),
    "file-key": (4, encode_node_key(bytes(range(32)))),
    "file-seed": (4, b"\x00\xff\r\n"),
    "file-empty": (4, b""),
    "equal": (5, packed(bytes(32)) + packed(bytes(32))),
    "unequal": (5, packed(bytes(32)) + packed(b"passphrase")),
    "short": (5, packed(bytes(31)) + packed(b"passphrase")),
    "name": (6, "größe 1.txt"),
    "name-above": (6, ".."),
    "name-below": (6, "a/b"),
    "name-backslash": (6, "..\\a"),
    "name-hidden": (6, ".profile"),
    "name-escape": (6, "a\x1b[2J"),
    "name-backwards": (6, "a\u202egnp.exe"),
    "name-two-lines": (6, "a\u2028b"),
    "name-no-utf-8": (6, b"a\xff"),
    "name-of-a-device": (6, "com1 .txt"),
    "name-of-a-device-raised": (6, "LPT\u00b2"),
    "name-of-a-console": (6, "conin$"),
    "name-of-a-drive": (6, "c:a"),
    "name-that-ends-in-a-dot": (6, "a."),
}


def texts() -> Seeds:
    """Addresses, ids, keys and seeds."""
    return {
        name: program(kind, text if isinstance(text, bytes) else text.encode()) for name, (kind, text) in TEXTS.items()
    }


def links() -> Seeds:
    """What both ends of a connection say, and what they refuse."""
    asked = (
        b"GET /stt HTTP/1.1\r\nHost: here\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: stt.v1\r\n"
    )
    answered = (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: ICX+Yqv66kxgM0FcWaLWlFLwTAI=\r\nSec-WebSocket-Protocol: stt.v1\r\n\r\n"
    )
    mask = b"\1\2\3\4"
    masked = b"\x82\x83" + mask + bytes(one ^ two for one, two in zip(b"abc", mask, strict=False))
    large = b"\x82\xfe\0\x80" + mask + bytes(128)
    return {
        "framed": b"\0\x03\0" + b"\0\5hello\0\1x",
        "framed-empty": b"\0\0\1" + b"\0\2ok\0\0\0\1x",
        "framed-cut": b"\0\0\1" + b"\0\5hell",
        "server": b"\1\x10\0" + asked + b"\r\n" + masked + large,
        "server-origin": b"\1\xff\0" + asked + b"Origin: https://here\r\n\r\n" + masked,
        "server-text": b"\1\x07\0" + asked + b"\r\n\x81" + masked[1:],
        "server-fragments": b"\1\x02\0" + asked + b"\r\n\x02" + masked[1:] + b"\0" + masked[1:] + b"\x80" + masked[1:],
        "server-ping-close": b"\1\x20\1" + asked + b"\r\n\x89" + masked[1:] + b"\x88\x82" + mask + b"\2\xea",
        "server-too-large": b"\1\xff\0" + asked + b"\r\n\x82\xff" + bytes(5) + b"\1\0\0" + mask,
        "server-plain": b"\1\x05\1" + b"GET / HTTP/1.1\r\n\r\n",
        "client": b"\2\x30\0" + answered + b"\x82\3abc\x82\x7e\0\x80" + bytes(128),
        "client-refused": b"\2\x09\1" + b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno",
        "client-close": b"\2\xff\1" + answered + b"\x88\x06\x03\xe9bye!",
        "tunnel": b"\3\x11\0" + b"HTTP/1.1 200 OK\r\n\r\n\0\5hello",
        "tunnel-refused": b"\3\x02\1" + b"HTTP/1.0 407 Proxy Authentication Required\r\nA: b\r\n\r\n",
    }
