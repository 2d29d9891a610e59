"""What an endpoint still holds, and whether it is at rest: the looks into it that a proof of no leaks needs."""

from __future__ import annotations

from stt_proto.endpoint import Endpoint
from stt_proto.session.session import Session
from stt_proto.types import SessionState


def tables(endpoint: Endpoint) -> dict[str, int]:
    """How much an endpoint holds in each of its tables, by name."""
    context, responder = endpoint._context, endpoint._responder
    endpoint.next_deadline()  # which also forgets what is over
    return {
        "connection IDs": len(context.connection_ids),
        "sessions begun": len(context.live),
        "sessions": len(context.sessions),
        "sessions that linger": len(endpoint._lingering),
        "sessions with something to send": len(context.ready),
        "sessions to be armed": len(context.unarmed),
        "full paths": len(context.full),
        "paths": len(context.by_path),
        "sessions without a path": len(context.detached),
        "our dials": len(context.dial_keys),
        "pieces": len(context.pieces),
        "reset tokens": len(context.expected_resets),
        "incomplete trains": len(context.train_budget),
        "bytes of trains": context.train_budget.cost,
        "half-open": len(responder),
        "first messages of half-open ones": sum(begun is not None for begun in responder._by_hello.values()),
        "answers": len(endpoint._outbox),
        "events": len(endpoint._events),
    }


def held(endpoint: Endpoint) -> dict[str, int]:
    """The tables that are not empty."""
    return {name: count for name, count in tables(endpoint).items() if count}


def owns(endpoint: Endpoint, session: Session) -> bool:
    """Whether a session was begun by this endpoint, or with it."""
    return session._context is endpoint._context


def unrest(endpoint: Endpoint) -> Session | None:
    """A session that begins or ends, or waits for an acknowledgement; `None` when all only wait for applications."""
    for session in endpoint._context.live:
        in_flight = session.stats().bytes_in_flight or any(path.bytes_in_flight for path in session.paths)
        if session.state is not SessionState.ESTABLISHED or in_flight:
            return session
    return None
