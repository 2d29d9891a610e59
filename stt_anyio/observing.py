"""What watches a node, as its configuration and the environment say: qlog and a key log.

Neither may keep a node from its work, so what cannot be opened is a warning and not an error.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from attrs import frozen

from stt_anyio.config import NodeConfig
from stt_anyio.keylog import KeyLogFile
from stt_anyio.qlog import QlogTrace

logger = logging.getLogger("stt.node")

QLOG_VARIABLE = "STTQLOGDIR"
"""The variable of the environment that says where qlog goes, if the configuration does not."""
KEYLOG_VARIABLE = "STTKEYLOGFILE"
"""Likewise for the secrets."""


@frozen
class Observers:
    """What watches one endpoint.

    Attributes:
        trace: writes qlog, or `None`.
        keylog: writes secrets, or `None`.
    """

    trace: QlogTrace | None = None
    keylog: KeyLogFile | None = None

    @classmethod
    def open(cls, config: NodeConfig, environ: Mapping[str, str]) -> Observers:
        """Open what is asked for, and can be opened."""
        directory = config.qlog_dir or environ.get(QLOG_VARIABLE)
        file = config.keylog_file or environ.get(KEYLOG_VARIABLE)
        trace = keylog = None
        if directory:
            try:
                trace = QlogTrace(directory)
            except OSError as error:
                logger.warning("there is no qlog: %s", error)
        if file:
            try:
                keylog = KeyLogFile(file)
            except OSError as error:
                logger.warning("there is no key log: %s", error)
        return cls(trace, keylog)

    def close(self) -> None:
        """Write what is left."""
        if self.trace is not None:
            self.trace.close()
        if self.keylog is not None:
            self.keylog.close()
