"""What a dial is asked for, checked before anything is looked up, opened or sent: the core sees it later."""

from __future__ import annotations

from typing import Any

from stt_anyio.errors import ArgumentError
from stt_anyio.timeouts import check_timeout
from stt_proto import Ticket
from stt_proto.tickets import MAX_EARLY_DATA


def check_dial(peer_node_id: Any, timeout: Any, ticket: Any, early_data: Any) -> None:
    """See that these can be arguments of `connect`.

    Raises:
        ArgumentError: names the one that cannot.
    """
    check_timeout(timeout)
    if peer_node_id is not None and not (isinstance(peer_node_id, bytes) and len(peer_node_id) == 32):
        raise ArgumentError(f"peer_node_id is {peer_node_id!r}; it must be 32 bytes", argument="peer_node_id")
    if not isinstance(ticket, Ticket | None):
        raise ArgumentError(f"ticket is of type {type(ticket).__name__}; it must be a Ticket", argument="ticket")
    if not isinstance(early_data, bytes) or len(early_data) > MAX_EARLY_DATA:
        raise ArgumentError(f"early_data must be bytes, at most {MAX_EARLY_DATA}", argument="early_data")
