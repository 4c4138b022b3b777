"""Replay benchmarks through this project's scorers: ``python -m tests.golden.replay_benchmarks FOLDER``

FOLDER holds one folder per benchmark with its annotation files and a ``reference*.json``: inputs, and the figures that
the official scripts returned for them. The ``benchmark`` key of a reference says what it is of; one with lists of texts
under ``time`` and ``mcq`` is of extractors.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.golden.checks import Check, finish
from tests.golden.replay import collect

BenchmarkAdapter = Callable[[dict[str, Any], Path], Iterator[Check]]
"""(the reference, FOLDER) -> one check per official figure and per recorded item."""


def adapters() -> dict[str, BenchmarkAdapter]:
    """Return every adapter by the name of its benchmark, from all ``adapters_*`` modules beside this one."""
    return collect("BENCHMARK_ADAPTERS")


def name_of(reference: dict[str, Any]) -> str:
    """Return which benchmark a reference is of, from what is in it."""
    if "benchmark" in reference:
        return str(reference["benchmark"])
    return "extractors" if {"time", "mcq"} & reference.keys() else "unknown"


def replay(folder: Path) -> Iterator[Check]:
    """Yield the checks of every reference under ``folder``; that there is none is a failed check."""
    known = adapters()
    paths = [path for path in sorted(folder.rglob("*.json")) if path.name.startswith("reference")]
    if not paths:
        yield Check(str(folder), "holds no reference*.json")
    for path in paths:
        try:
            reference = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            yield Check(str(path.relative_to(folder)), f"cannot be read: {error}")
            continue
        if not isinstance(reference, dict):
            yield Check(str(path.relative_to(folder)), f"is no object: {reference!r:.80}")
            continue
        name = name_of(reference)
        adapter = known.get(name)
        if adapter is None:
            yield Check(str(path.relative_to(folder)), f"no scorer of ours answers for benchmark {name!r}")
            continue
        number = 0
        try:
            for check in adapter(reference, folder):
                number += 1
                yield Check(f"{name}: {check.id}", check.why)
        except Exception as error:  # the other benchmarks are still replayed
            yield Check(name, f"our code raised {type(error).__name__} after {number} checks: {error}")
            continue
        if not number:
            yield Check(name, "nothing was checked")


def main(arguments: Sequence[str]) -> int:
    """Replay the folder and return the exit code."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print(__doc__)
        return 2
    return finish(replay(Path(arguments[0])))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
