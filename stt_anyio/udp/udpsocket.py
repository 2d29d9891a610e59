"""The UDP socket: what arrives is handed on in runs, what is sent goes out in runs, and the system's word is heard.

Where the system can, one call sends a run of datagrams of one size (`UDP_SEGMENT`) and one call receives one
(`UDP_GRO`). Both are Linux's; both are asked for when the socket is made and given up when the system changes its
mind. Elsewhere it is one call a datagram, and where there is no `recvmsg` (Windows) `recvfrom_into`.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from stt_anyio.config import NodeConfig
from stt_anyio.udp import options
from stt_anyio.udp.addresses import Address
from stt_proto.types import NetworkPath, Transmit

READS_PER_WAKE_UP = 16
"""Reads after which others get their turn, though the socket has more."""
LONE = 16
"""Wake-ups in a row that found a single datagram, after which it is not looked for a second one every time."""
ERRORS_AT_ONCE = 64
"""Complaints of the system that are read in a row."""
MAX_PATHS = 4096
"""Paths that are remembered twice over; forgetting one costs a new object, nothing else."""
MAX_OPTIONS = 256
"""Sizes of segments for which the options of a call are remembered."""
_MAX_DATAGRAM = 65_535
_ANCILLARY = 128
"""Bytes for what the system tells beside the data: a size of segments, marks, an address of this machine."""

_UNREACHABLE = {
    errno.ECONNREFUSED: "refused",
    errno.ECONNRESET: "refused",  # what Windows makes of "port unreachable"
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.EADDRNOTAVAIL: "unreachable",
}
"""Hints about one path, which end nothing but an attempt to connect."""
_FATAL = frozenset({errno.EBADF, errno.ENETDOWN, errno.ENOTSOCK})
"""The socket is of no use any more."""
_NOT_LIKE_THIS = frozenset({errno.EIO, errno.EINVAL, errno.ENOPROTOOPT, errno.EOPNOTSUPP})
"""What Linux says when the way out of the machine cannot segment after all, or marks are not to be set."""
_LOCAL = 1
"""SO_EE_ORIGIN_LOCAL: what is said in the queue of errors comes from this machine, and not from who can write ICMP."""

Sink = Callable[[memoryview, NetworkPath, "int | None", int], None]
Hint = Callable[[NetworkPath, str], None]
Refusal = Callable[[NetworkPath, int, "int | None"], None]
Option = tuple[int, int, bytes]
Told = tuple["int | None", int, bytes]
"""What came beside the data: the size of segments, the ECN bits, and the address it was sent to, empty if not told."""


class UdpSocket:
    """One socket: no waiting, no event loop.

    Args:
        family: IPv4 or IPv6; an IPv6 socket carries IPv6 only.
        address: where to bind.
        config: its `reuse_port`, `offload` and sizes of buffers, of which the system may grant less.
        bound: a socket that somebody else has bound to that address, to be used instead; it belongs to this one then.

    Attributes:
        local: the address it is bound to.
        segmentation: whether runs of datagrams are sent in one call.
        coalescing: whether runs of datagrams are received in one call.
        marking: whether ECN bits are set on what is sent.
        never_cut: whether the system promised not to cut datagrams into fragments, so that sizes can be tried.
        granted: bytes of receive buffer that the system granted.
        datagrams_dropped: datagrams that the system refused; to the protocol they are lost.
        datagrams_too_large: those among them that were too large for the machine's own network.
        hint: called with a path and `"refused"` or `"unreachable"` when the system says so.
        too_large: called with a path, the bytes of a datagram that was too large for the machine's own network, and
            the bytes of the largest that is not, if the system says so.

    Raises:
        OSError: the address is taken, or not ours.
    """

    def __init__(
        self, family: socket.AddressFamily, address: Address, config: NodeConfig, bound: socket.socket | None = None
    ) -> None:
        self._paths: dict[Address, NetworkPath] = {}
        self._old_paths: dict[Address, NetworkPath] = {}
        self._options: dict[tuple[int | None, int, str], list[Option]] = {}
        self._view = memoryview(bytearray(_MAX_DATAGRAM))
        self._buffers = [self._view]
        self._heard: list[Option] = []  # beside the last datagram; one after the other it is mostly the same
        self._told = _told(self._heard)
        self._lone = 0  # wake-ups in a row that found no more than one datagram
        self.datagrams_dropped = 0
        self.datagrams_too_large = 0
        self.hint: Hint = lambda path, reason: None
        self.too_large: Refusal = lambda path, size, limit: None
        self.family = family
        self._socket = sock = bound or socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            if bound is None:
                if config.reuse_port:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            self._ask_for_options(config)
            if bound is None:
                sock.bind(address)
            if sock.getsockname()[0] in options.ANY:
                options.tell_addresses(sock, family)
        except BaseException:
            sock.close()
            raise
        self.local: Address = sock.getsockname()
        self._recvmsg_into = getattr(sock, "recvmsg_into", None)
        self._sendmsg = getattr(sock, "sendmsg", None)

    def _ask_for_options(self, config: NodeConfig) -> None:
        """Ask for what makes it faster, and look at what there is."""
        sock, family = self._socket, self.family
        self.granted = options.set_buffer(sock, "SO_RCVBUF", config.recv_buffer_size)
        options.set_buffer(sock, "SO_SNDBUF", config.send_buffer_size)
        offload = config.offload and options.LINUX
        self.segmentation = offload and options.try_option(sock, options.SOL_UDP, options.UDP_SEGMENT, 1200, 0)
        self.coalescing = offload and options.try_option(sock, options.SOL_UDP, options.UDP_GRO, 1)
        self._errors_queued = options.LINUX and options.try_option(sock, *options.ERRORS_QUEUED[family], 1)
        self.marking = options.tell_marks(sock, family) and options.LINUX
        self.never_cut = options.never_cut(sock, family)

    def fileno(self) -> int:
        """The descriptor, or -1 when closed; so the socket can be waited for."""
        return self._socket.fileno()

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()

    # -- paths -----------------------------------------------------------------------------------------------------

    def path(self, remote: Address) -> NetworkPath:
        """The path to an address: one object for one address, as long as it is in use."""
        return self._known(remote) or self._keep(remote, NetworkPath("udp", self.local, remote))

    def path_between(self, here: bytes, remote: Address) -> NetworkPath:
        """The path from an address to one of ours, packed, on a socket that has them all; also one object.

        Answers must leave from the address that was asked. What we have dialled ourselves answers to whichever of our
        addresses the system chose.
        """
        key = here, remote
        path = self._known(key) or self._known(remote)
        if path is None:
            path = NetworkPath("udp", (socket.inet_ntop(self.family, here), *self.local[1:]), remote)
        return self._keep(key, path)

    def _known(self, key: Address) -> NetworkPath | None:
        return self._paths.get(key) or self._old_paths.get(key)

    def _keep(self, key: Address, path: NetworkPath) -> NetworkPath:
        """Two generations of a table stand in for a list of what was used last: what is found in the old one moves to
        the new one, and when that is full the old one goes."""
        if len(self._paths) >= MAX_PATHS:
            self._old_paths, self._paths = self._paths, {}
        self._paths[key] = path
        return path

    # -- in --------------------------------------------------------------------------------------------------------

    def receive(self, sink: Sink) -> int:
        """Hand what has arrived to `sink`, at most `READS_PER_WAKE_UP` reads of it; the memory is used again at once.

        It may leave something behind, so it is to be called whenever the socket is readable, not when it becomes so.

        Returns:
            how many reads brought something.

        Raises:
            OSError: the socket is dead.
        """
        view = self._view
        heard, told = self._heard, self._told
        # To find nothing costs as much as a small datagram. Where they come one by one the system is believed, which
        # wakes us again if there are more.
        if self._lone > LONE and self._lone % LONE:
            most = 1
        else:
            most = READS_PER_WAKE_UP
        for reads in range(most):
            try:
                if self._recvmsg_into is not None:
                    size, ancillary, _, remote = self._recvmsg_into(self._buffers, _ANCILLARY)
                    if ancillary != heard:
                        heard, told = self._heard, self._told = ancillary, _told(ancillary)
                else:
                    size, remote = self._socket.recvfrom_into(view)
            except BlockingIOError:
                if not reads:
                    self._read_errors()  # which is what woke us
                self._lone = self._lone + 1 if reads < 2 and told[0] is None else 0
                return reads
            except OSError as error:
                self._on_error(error)
                continue
            segment_size, ecn, here = told
            if here:
                path = self._paths.get((here, remote)) or self.path_between(here, remote)
            else:
                path = self._paths.get(remote) or self.path(remote)
            sink(view[:size], path, segment_size, ecn)
        self._lone = self._lone + 1 if most == 1 and told[0] is None else 0
        return most

    # -- out -------------------------------------------------------------------------------------------------------

    def send(self, transmit: Transmit) -> Transmit | None:
        """Send at once.

        Returns:
            `None`, or what is left because the socket is full.

        Raises:
            OSError: the socket is dead. What the system refuses for any other reason is dropped: that is loss, and
                recovery knows what to do.
        """
        segment_size = transmit.segment_size
        if segment_size is None or self.segmentation:
            return self._send(transmit, self._options_for(transmit, segment_size))
        return self._send_singly(transmit)

    def _options_for(self, transmit: Transmit, segment_size: int | None = None) -> Sequence[Option]:
        """What is said beside the data in one call."""
        ecn = transmit.ecn if self.marking else 0
        local: Any = transmit.path.local
        source = "" if local == self.local else local[0]
        if segment_size is None and not ecn and not source:
            return ()
        chosen = self._options.get((segment_size, ecn, source))
        if chosen is None:
            if len(self._options) > MAX_OPTIONS:
                self._options.clear()
            chosen = self._options[segment_size, ecn, source] = []
            if segment_size is not None:
                chosen.append(options.segment_option(segment_size))
            if ecn:
                chosen.append(options.mark_option(self.family, ecn))
            if source:
                chosen.append(options.source_option(self.family, source))
        return chosen

    def _send(self, transmit: Transmit, chosen: Sequence[Option]) -> Transmit | None:
        """One call for all of it, and another when that only brought news of some other path, or marks are at fault."""
        remote: Any = transmit.path.remote
        marking = self.marking
        for _ in range(3):
            try:
                if self._sendmsg is not None:
                    self._sendmsg(transmit.buffers, chosen, 0, remote)
                else:
                    self._socket.sendto(b"".join(transmit.buffers), remote)
                return None
            except BlockingIOError:
                return transmit
            except OSError as error:
                number = error.errno
                if transmit.segment_size is not None and (number == errno.EMSGSIZE or number in _NOT_LIKE_THIS):
                    return self._send_after_refusal(transmit, number)
                if number == errno.EMSGSIZE:
                    if self._is_too_large(transmit):
                        break
                elif number in _NOT_LIKE_THIS and self.marking and transmit.ecn:
                    self.marking = False
                    chosen = self._options_for(transmit)
                elif not self._on_error(error, transmit.path):
                    break
        self.marking = marking  # it was not because of the marks
        self.datagrams_dropped += 1
        return None

    def _send_singly(self, transmit: Transmit) -> Transmit | None:
        """One call a datagram. Behind one that is too large there are none that are worth a call."""
        path, datagrams, refused = transmit.path, tuple(transmit.datagrams()), self.datagrams_too_large
        for index, datagram in enumerate(datagrams):
            single = Transmit(path, (datagram,), None, transmit.ecn)
            if self._send(single, self._options_for(single)) is not None:
                return Transmit(path, datagrams[index:], transmit.segment_size, transmit.ecn)
            if self.datagrams_too_large > refused:
                self.datagrams_dropped += len(datagrams) - index - 1
                break
        return None

    def _send_after_refusal(self, transmit: Transmit, number: int) -> Transmit | None:
        """The system does not take a run. If it takes its datagrams one by one, it does not know runs any more."""
        dropped, marking = self.datagrams_dropped, self.marking
        left = self._send_singly(transmit)
        if number != errno.EMSGSIZE and left is None and self.datagrams_dropped == dropped and self.marking == marking:
            self.segmentation = False
        return left

    # -- what the system complains about ---------------------------------------------------------------------------

    def _on_error(self, error: OSError, path: NetworkPath | None = None) -> bool:
        """Take in an error of a call, which was about `path` if that is known; raise it again if the socket is dead.

        Returns:
            whether it was news that had waited here, so that the call itself was not even tried.
        """
        if error.errno in _FATAL:
            raise error
        reason = _UNREACHABLE.get(error.errno or 0)
        if reason is None:
            return False
        if self._read_errors()[0]:
            return True
        if path is not None:
            self.hint(path, reason)
        return False

    def _is_too_large(self, transmit: Transmit) -> bool:
        """Whether the machine's own network does not take a datagram; then the protocol is told.

        What comes by ICMP looks the same here, and anybody can write that (G-3). Where there is a queue of errors, it
        tells who says so.
        """
        _, limit = self._read_errors()
        if limit is None and self._errors_queued:
            return False
        self.datagrams_too_large += 1
        self.too_large(transmit.path, transmit.size, limit)
        return True

    def _read_errors(self) -> tuple[bool, int | None]:
        """Read what is in the queue of errors (Linux), each with the address that it is about.

        Returns:
            whether there was anything, and the bytes of the largest datagram that this machine's network takes, if it
            was about that.
        """
        limit: int | None = None
        if not self._errors_queued:
            return False, None
        for count in range(ERRORS_AT_ONCE):
            try:
                _, ancillary, _, remote = self._socket.recvmsg(0, 512, socket.MSG_ERRQUEUE)
            except OSError:
                return count > 0, limit
            for level, kind, data in ancillary:
                if (level, kind) != options.ERRORS_QUEUED[self.family]:
                    continue
                number, origin = int.from_bytes(data[:4], sys.byteorder), data[4]
                reason = _UNREACHABLE.get(number)
                if reason is not None and remote:
                    self.hint(self.path(remote), reason)
                elif number == errno.EMSGSIZE and origin == _LOCAL:
                    limit = int.from_bytes(data[8:12], sys.byteorder) - options.HEADERS[self.family]
        return True, limit


def _told(ancillary: list[Option]) -> Told:
    """What the system says of a run of datagrams."""
    segment_size, ecn, here = None, 0, b""
    for level, kind, data in ancillary:
        what = level, kind
        if what == options.RUN:
            segment_size = int.from_bytes(data[:2], sys.byteorder)
        elif what in options.TOLD_TOS:
            ecn = int.from_bytes(data, sys.byteorder) & 3
        elif what in options.TOLD_ADDRESS:
            here = data[options.TOLD_ADDRESS[what]]
    return segment_size, ecn, here


def owner_of(local: Any, sockets: Iterable[UdpSocket]) -> UdpSocket | None:
    """The socket of a path that begins at this address: bound to it, or to all addresses with its port."""
    return next((sock for sock in sockets if (len(sock.local), sock.local[1]) == (len(local), local[1])), None)
