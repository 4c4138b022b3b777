"""Our extractors beside what the official ones returned for the same texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.golden.checks import Check, compare
from tests.golden.replay_benchmarks import BenchmarkAdapter
from timeloupe.eval import extractors
from timeloupe.eval.scripts.errors import OfficialError

KNOWN_KEYS = {"what", "set", "commits", "time", "mcq", "benchmark"}


def outcome(extract: Callable[[str], Any], text: str) -> Any:
    """Return what ``extract`` gives, in the reference's form for an exception too."""
    try:
        return extract(text)
    except OfficialError as error:
        return {"raises": error.kind, "message": str(error).removeprefix(f"{error.kind}: ")}


def checks_of(
    kind: str, records: list[dict[str, Any]], known: Mapping[str, Callable[[str], Any]]
) -> Iterator[Check]:
    """Yield one check per text and script."""
    for number, record in enumerate(records):
        for name, expected in record["out"].items():
            id = f"{kind} {number} {record['text']!r:.60} {name}"
            if name not in known:
                yield Check(id, "no extractor of ours has this name")
            else:
                yield compare(id, outcome(known[name], record["text"]), expected)


def replay(reference: dict[str, Any], folder: Path) -> Iterator[Check]:
    """Yield the checks of every text."""
    for key in reference.keys() - KNOWN_KEYS:
        yield Check(key, "no check of ours reads this key")
    yield from checks_of("time", reference["time"], extractors.TIME_EXTRACTORS)
    yield from checks_of("letter", reference["mcq"], extractors.LETTER_EXTRACTORS)


BENCHMARK_ADAPTERS: dict[str, BenchmarkAdapter] = {"extractors": replay}
