"""qlog: what a session did, in files that viewers such as qvis show (docs/tracing.md).

node = STTNode(shared_seed="...", qlog_dir="traces")
endpoint = Endpoint(config, ..., trace=QlogTrace("traces"))
"""

from __future__ import annotations

from stt_anyio.qlog.trace import QlogTrace

__all__ = ["QlogTrace"]
