"""Handshake messages in pieces (docs/protocol.md, W-3, W-4)."""

from __future__ import annotations

import random
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt_proto.handshake import PieceCollector
from stt_proto.types import NetworkPath
from stt_proto.wire import Message, MessageType, Piece, decode_datagram_untrusted, encode_pieces

PATH = NetworkPath("udp", 1, ("198.51.100.7", 50000))
OTHER_PATH = NetworkPath("udp", 1, ("198.51.100.7", 50001))
DCID, SCID = b"destinat", b"source--"


def message(body: bytes, **changes: Any) -> Message:
    return Message(**{"type": MessageType.CHALLENGE, "dcid": DCID, "scid": SCID, "body": body, **changes})


def pieces(whole: Message, room: int = 1163) -> list[Piece]:
    """The pieces of a message, as they arrive, with `room` bytes of it in each."""
    datagrams = encode_pieces(whole, 37 + room)
    return [piece for datagram in datagrams if isinstance(piece := decode_datagram_untrusted(datagram), Piece)]


BODY = bytes(range(256)) * 12
WHOLE = message(BODY)


@given(
    body=st.binary(min_size=2000, max_size=2000) | st.just(bytes(8192)),
    room=st.integers(256, 1163),
    order=st.randoms(use_true_random=False),
    copies=st.integers(1, 3),
)
def test_any_order_and_any_copies(body: bytes, room: int, order: random.Random, copies: int) -> None:
    """W-3: the message is given once, when its last piece has come, whatever the network did to them."""
    whole = message(body)
    arriving = pieces(whole, room)
    order.shuffle(arriving)
    collector = PieceCollector()
    given_out = [collector.add(piece, PATH, False, 0.0) for piece in arriving for _ in range(copies)]
    assert [found for found in given_out if found] == [whole]
    if copies == 1:
        assert given_out[-1] == whole
        assert len(collector) == 0


def test_groups_do_not_mix() -> None:
    """W-3: pieces belong together only with the same path, type, connection IDs, hash and total."""
    first, *rest = pieces(WHOLE)
    collector = PieceCollector()
    collector.add(first, PATH, False, 0.0)
    strangers = [
        (OTHER_PATH, {}),
        (PATH, {"type": MessageType.AUTH_PROOF}),
        (PATH, {"dcid": b"another-"}),
        (PATH, {"scid": b"another-"}),
        (PATH, {"hash8": b"another-"}),
        (PATH, {"total": 8000}),
    ]
    for path, changes in strangers:
        for piece in rest:
            assert collector.add(piece._replace(**changes), path, False, 0.0) is None
    assert [collector.add(piece, PATH, False, 0.0) for piece in rest][-1] is None, "pushed out by its siblings"
    assert collector.add(first, PATH, False, 0.0) == WHOLE


def test_group_with_a_wrong_hash_is_discarded_whole() -> None:
    """W-3: pieces that somebody made up cost one repetition, no more."""
    first, second, *rest = pieces(WHOLE)
    collector = PieceCollector()
    forged = second._replace(data=bytes(len(second.data)))
    assert [collector.add(piece, PATH, False, 0.0) for piece in (first, forged, *rest)][-1] is None
    assert len(collector) == 0
    assert [collector.add(piece, PATH, False, 0.0) for piece in pieces(WHOLE)][-1] == WHOLE


@pytest.mark.parametrize(("offset", "size"), [(0, 1), (0, 1164), (1, 1163), (1162, 5), (500, 10)])
def test_newest_piece_counts(offset: int, size: int) -> None:
    """W-3: a forged piece that overlaps costs one repetition: it does not stand in the way of those after it."""
    first, *rest = pieces(WHOLE)
    collector = PieceCollector()
    forged = first._replace(offset=offset, data=bytes(size))
    assert collector.add(forged, PATH, False, 0.0) is None
    assert [collector.add(piece, PATH, False, 0.0) for piece in (first, *rest)][-1] == WHOLE
    assert [collector.add(piece, PATH, False, 0.0) for piece in (first, forged, *rest)][-1] is None
    assert WHOLE in [collector.add(piece, PATH, False, 0.0) for piece in (first, *rest)]


def test_many_forged_pieces_are_no_dam() -> None:
    """W-3: as many as are kept, each one byte, all of them overlapped by the genuine ones."""
    collector = PieceCollector()
    first, *rest = pieces(WHOLE)
    for offset in range(0, 64, 2):
        assert collector.add(first._replace(offset=offset, data=b"!"), PATH, False, 0.0) is None
    assert [collector.add(piece, PATH, False, 0.0) for piece in (first, *rest)][-1] == WHOLE


def test_four_groups_a_handshake() -> None:
    """W-3: at most 4 groups a handshake, the oldest goes first."""
    collector = PieceCollector()
    wholes = [message(bytes((number,)) * 3000) for number in range(5)]
    for whole in wholes:
        collector.add(pieces(whole)[0], PATH, False, 0.0)
    assert len(collector) == 4
    results = {}
    for number, whole in reversed(list(enumerate(wholes))):
        for piece in pieces(whole)[1:]:
            results[number] = collector.add(piece, PATH, False, 0.0)
    assert results == {0: None, **{number: wholes[number] for number in range(1, 5)}}


def test_sixty_four_groups_an_endpoint() -> None:
    """W-3: at most 64 groups in all, the oldest goes first."""
    collector = PieceCollector()
    wholes = [message(BODY, dcid=number.to_bytes(8)) for number in range(65)]
    for whole in wholes:
        collector.add(pieces(whole)[0], PATH, False, 0.0)
        assert len(collector) <= 64
    assert [collector.add(piece, PATH, False, 0.0) for piece in pieces(wholes[64])[1:]][-1] == wholes[64]
    assert [collector.add(piece, PATH, False, 0.0) for piece in pieces(wholes[0])[1:]][-1] is None


def test_a_message_has_few_pieces() -> None:
    """W-3: what is kept of a group is bounded in number, not only in bytes."""
    collector = PieceCollector()
    tiny = pieces(message(bytes(33 * 200)), 200)
    assert len(tiny) == 33
    assert [collector.add(piece, PATH, False, 0.0) for piece in tiny] == [None] * 33


def test_hello_in_pieces_only_where_addresses_are_true() -> None:
    """W-4: elsewhere a HELLO pays with a datagram of 1,200 bytes of its own."""
    hello = message(BODY, type=MessageType.HELLO)
    collector = PieceCollector()
    for piece in pieces(hello):
        assert collector.add(piece, PATH, False, 0.0) is None
    assert len(collector) == 0
    assert [collector.add(piece, PATH, True, 0.0) for piece in pieces(hello)][-1] == hello


HELLO = message(BODY, type=MessageType.HELLO)


def test_pieces_of_a_hello_expire() -> None:
    """W-3: they belong to no handshake that could end, so they have the time of one."""
    collector = PieceCollector(timeout=3.0)
    first, *rest = pieces(HELLO)
    collector.add(first, PATH, True, 1.0)
    collector.add(rest[0], PATH, True, 3.9)
    later = message(BODY, type=MessageType.HELLO, dcid=b"another-")
    collector.add(pieces(later)[0], PATH, True, 2.0)
    assert collector.deadline == 4.0
    collector.expire(3.999)
    assert len(collector) == 2
    collector.expire(4.0)
    assert (len(collector), collector.deadline) == (1, 5.0)
    assert [collector.add(piece, PATH, True, 4.0) for piece in rest][-1] is None
    collector.expire(100.0)
    assert (len(collector), collector.deadline) == (0, inf)


def test_a_hello_that_came_whole_has_no_time() -> None:
    """W-3: nor have the pieces of other messages: they go with their handshake."""
    collector = PieceCollector()
    assert [collector.add(piece, PATH, True, 0.0) for piece in pieces(HELLO)][-1] == HELLO
    collector.add(pieces(WHOLE)[0], PATH, False, 0.0)
    assert collector.deadline == inf
    collector.expire(1e9)
    assert len(collector) == 1


def test_pieces_go_with_their_path() -> None:
    """W-3: those of a HELLO, too, and only those of this path."""
    collector = PieceCollector()
    for whole, path in ((HELLO, PATH), (HELLO, OTHER_PATH), (WHOLE, PATH)):
        collector.add(pieces(whole)[0], path, True, 0.0)
    collector.path_closed(PATH)
    assert len(collector) == 1
    assert [collector.add(piece, OTHER_PATH, True, 0.0) for piece in pieces(HELLO)[1:]][-1] == HELLO
    assert collector.deadline == inf


def test_hellos_that_are_pushed_out_leave_nothing() -> None:
    """W-3: at most 4 groups a handshake and 64 in all; what goes takes its time along."""
    collector = PieceCollector()
    for number in range(6):
        collector.add(
            pieces(message(BODY, type=MessageType.HELLO, scid=number.to_bytes(8)))[0], PATH, True, 1.0 * number
        )
    assert (len(collector), collector.deadline) == (4, 12.0)
    for number in range(64):
        collector.add(pieces(message(BODY, dcid=number.to_bytes(8)))[0], PATH, True, 6.0)
    assert (len(collector), collector.deadline) == (64, inf)


def test_forget() -> None:
    """What was kept for a handshake goes with it, and only that."""
    collector = PieceCollector()
    other = message(BODY, dcid=b"another-")
    for whole, path in ((WHOLE, PATH), (WHOLE, OTHER_PATH), (other, PATH)):
        collector.add(pieces(whole)[0], path, False, 0.0)
    collector.forget(PATH, DCID)
    assert len(collector) == 2
    assert [collector.add(piece, PATH, False, 0.0) for piece in pieces(other)[1:]][-1] == other
