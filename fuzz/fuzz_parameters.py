"""The parameters of the peer (docs/protocol.md, section 5), as they stand in HELLO for anybody to write.

Only `HandshakeError`; what was decoded is within its range, and is the same after it was encoded and decoded again.
"""

from __future__ import annotations

from fuzz.harness import instrumented, main

with instrumented(__name__):
    from stt_proto.errors import HandshakeError
    from stt_proto.wire import MAX_PARAMETERS, Parameters, decode_parameters_untrusted

LONGEST_ENCODING = 336


def fuzz_one(data: bytes) -> None:
    """Decode `data` as parameters."""
    try:
        parameters = decode_parameters_untrusted(data)
    except HandshakeError:
        return
    assert len(data) <= MAX_PARAMETERS
    encoded = parameters.encode()
    assert len(encoded) <= LONGEST_ENCODING
    assert decode_parameters_untrusted(encoded) == parameters
    if not data:
        assert parameters == Parameters()


if __name__ == "__main__":
    main(fuzz_one)
