"""What all objects that hold secrets have in common: they show nothing and do not leave the process."""

from __future__ import annotations

from typing import NoReturn


class Secret:
    """Base of all objects that hold keys.

    Their representation is their class and address. They can be neither pickled nor copied with `copy`: a key
    in two places is two counters over one sequence of nonces, and for AES-GCM that is the loss of everything.
    """

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds a secret and cannot be pickled or copied")
