"""Handshake datagrams, pieces, and the body of every handshake message (docs/protocol.md, section 3).

The first byte tells what the rest is: a datagram as it stands, a datagram whose check is made to fit, a row of pieces,
or the body of a message of one type. Only the documented errors; the same bytes when what was decoded is encoded; and
no more pieces kept than allowed.
"""

from __future__ import annotations

from fuzz.harness import Choices, instrumented, main

with instrumented(__name__):
    from fuzz.peers import path_of, with_check
    from stt_proto.errors import ChecksumError, HandshakeError
    from stt_proto.handshake import PieceCollector
    from stt_proto.wire import (
        MAX_BODY,
        MESSAGE_HEADER,
        Abort,
        AuthProof,
        Challenge,
        Hello,
        Message,
        MessageType,
        Piece,
        Refused,
        Resume,
        Resumed,
        Retry,
        VersionList,
        decode_datagram_untrusted,
        encode_datagram,
        encode_pieces,
    )

BODIES = (Hello, Challenge, AuthProof, Retry, Refused, VersionList, Abort, Resume, Resumed)
"""In the order of the numbers of their types, 1 to 9; the first bytes 3 to 11 stand for them."""
DATAGRAM, CHECKED, PIECES = range(3)
GROUPS = 8
MAX_PIECES = 32


def fuzz_one(data: bytes) -> None:
    """Decode what the first byte says."""
    if not data:
        return
    kind, rest = data[0] % (3 + len(BODIES)), data[1:]
    if kind == DATAGRAM:
        decode(rest)
    elif kind == CHECKED:
        decode(with_check(rest))
    elif kind == PIECES:
        collect(rest)
    else:
        decode_body(kind - 3, rest)


def decode(datagram: bytes) -> Message | Piece | None:
    """One datagram."""
    try:
        decoded = decode_datagram_untrusted(datagram)
    except (ChecksumError, HandshakeError):
        return None
    assert len(decoded.dcid) == len(decoded.scid) == 8
    if isinstance(decoded, Piece):
        assert 1 <= len(decoded.data) <= decoded.total - decoded.offset
        assert decoded.total <= MAX_BODY
    else:
        assert len(decoded.body) == len(datagram) - MESSAGE_HEADER
        assert encode_datagram(decoded) == datagram
    return decoded


def collect(data: bytes) -> None:
    """A row of pieces, of messages that are cut here, and of others: those that come whole are what was cut."""
    choices = Choices(data)
    collector = PieceCollector(GROUPS)
    paths = path_of(), path_of("198.51.100.9")
    cut: list[bytes] = []
    genuine: set[bytes] = set()
    while choices:
        if not cut or choices.below(8) == 0:
            message = Message(
                MessageType(1 + choices.below(len(MessageType))),
                choices.take(1).ljust(8, b"d"),
                choices.take(1).ljust(8, b"s"),
                choices.chunk() * (1 + choices.below(8)),
            )
            if len(message.body) > MAX_BODY:
                continue
            genuine.add(message.encoded)
            cut = list(encode_pieces(message, 38 + choices.below(300)))
        datagram = choices.pick(cut)
        if choices.below(4) == 0:
            datagram = with_check(choices.damage(datagram))
        decoded = decode(datagram)
        if not isinstance(decoded, Piece):
            continue
        path = choices.pick(paths)
        whole = collector.add(decoded, path, choices.below(4) != 0, 0.0)
        if whole is not None:
            assert whole.hash8 == decoded.hash8
            assert whole.encoded in genuine
        if choices.below(32) == 0:
            collector.forget(path, decoded.dcid)
        assert len(collector) <= GROUPS
        assert all(len(group) <= MAX_PIECES for group in collector._groups.values())
        assert all(sum(map(len, group.values())) < key[5] for key, group in collector._groups.items())


def decode_body(index: int, body: bytes) -> None:
    """The body of a message of one type."""
    cls = BODIES[index]
    try:
        decoded = cls.decode_untrusted(body)
    except HandshakeError:
        return
    encoded = decoded.encode()
    if isinstance(decoded, Hello | Resume):
        assert body[: len(encoded)] == encoded
        assert not any(body[len(encoded) :])
        assert body.startswith(decoded.core())
        if isinstance(decoded, Hello):
            assert len(decoded.hello_hash(bytes(8), bytes(8))) == 16
    else:
        assert encoded == body
    assert cls.decode_untrusted(encoded) == decoded


if __name__ == "__main__":
    main(fuzz_one)
