"""Writes the seeds of the corpora: `python -m fuzz.seeds`.

The same files come out each time. Beside them lie inputs that runs have found, `found-*`, which stay.
"""

from __future__ import annotations

from collections.abc import Callable

from fuzz.genuine import frames, links, messages, parameters, texts
from fuzz.harness import CORPUS, Seeds
from fuzz.programs import endpoint, header, initiator, records, responder, session, tickets, tokens

TARGETS: tuple[Callable[[], Seeds], ...] = (
    endpoint,
    frames,
    header,
    initiator,
    links,
    messages,
    parameters,
    records,
    responder,
    session,
    texts,
    tickets,
    tokens,
)


def main() -> None:
    """Write all seeds, in place of those that are there."""
    for make in TARGETS:
        folder = CORPUS / make.__name__
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            if not old.name.startswith("found-"):
                old.unlink()
        seeds = make()
        for name, data in seeds.items():
            (folder / name).write_bytes(data)
        print(f"{make.__name__}: {len(seeds)} seeds, {sum(map(len, seeds.values()))} bytes")


if __name__ == "__main__":
    main()
