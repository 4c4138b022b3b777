"""What the checks of letter benchmarks share: keys of a reference, printed blocks, figures of a script."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from tests.golden.checks import Check, compare
from timeloupe.eval.scoring import Predictions, Row, Scorer
from timeloupe.eval.scripts.errors import OfficialError

Handler = Callable[[str, Any], Iterator[Check]]

PRINTED = 1e-9
"""Figures that a script rounds are compared as they are printed."""

COUNTED = re.compile(r"^\s+(.+?)\s*(?:\([^)]*\))?\s*:\s*(\d+)/\s*(\d+)\s+Acc=\s*(\S+)%\s*$", re.MULTILINE)
AVERAGED = re.compile(r"^\s+(Average)\s*:\s+Acc=\s*(\S+)%\s*$", re.MULTILINE)


def dispatch(official: Mapping[str, Any], handlers: Mapping[str, Handler]) -> Iterator[Check]:
    """Yield the checks of every figure; a key without a handler is a failed check. Keys may go on after a handler's."""
    for key, value in official.items():
        handler = next((handle for start, handle in handlers.items() if key.startswith(start)), None)
        if handler is None:
            yield Check(key, "no scorer of ours answers for this key")
        else:
            yield from handler(key, value)


def unknown(key: str, value: Mapping[str, Any], known: Iterable[str]) -> Iterator[Check]:
    """Yield a failed check for every entry of a reference that is not known."""
    for name in value.keys() - set(known):
        yield Check(f"{key}: {name}", "this entry is not known")


def figures_of(scorer: Scorer, rows: Sequence[Row], predictions: Predictions) -> tuple[dict[str, Any], str]:
    """Return the figures of a script and "", or none and the kind of exception that it ends with."""
    try:
        return dict(scorer(rows, predictions).figures), ""
    except OfficialError as error:
        return {}, error.kind


def counted(stdout: str) -> dict[str, float]:
    """Return what a block of VideoTemp-o3 with lines ``name: right/total Acc=...%`` prints."""
    found: dict[str, float] = {}
    for name, right, total, percent in COUNTED.findall(stdout):
        found |= {f"{name} correct": int(right), f"{name} total": int(total), f"{name} Acc": float(percent)}
    return found | {f"{name} Acc": float(percent) for name, percent in AVERAGED.findall(stdout)}


def printed_by(
    scorer: Scorer, rows: Sequence[Row], predictions: Predictions, read: Callable[[str], Any]
) -> Handler:
    """Return the handler of ``{"stdout": ..., "error": ...}``: the numbers in the text, or the exception's kind."""

    def handle(key: str, value: Any) -> Iterator[Check]:
        yield from unknown(key, value, ("stdout", "error", "stderr", "n"))
        got, raised = figures_of(scorer, rows, predictions)
        error = value.get("error") or value.get("stderr") or ""
        kinds = re.findall(r"^(\w+)(?=:|$)", error.strip().split("\n")[-1])
        yield compare(f"{key}: raises", raised, kinds[0] if kinds else "")
        if not error:
            yield compare(f"{key}: stdout", got, read(value["stdout"]), PRINTED)
        if "n" in value:
            yield compare(f"{key}: n", scorer(rows, predictions).num_scored, value["n"])

    return handle


def same(scorer: Scorer, rows: Sequence[Row], predictions: Predictions) -> Handler:
    """Return the handler of figures under the script's own names, all of them."""

    def handle(key: str, value: Any) -> Iterator[Check]:
        got, _ = figures_of(scorer, rows, predictions)
        yield from unknown(key, value, got)
        for name, figure in got.items():
            yield compare(f"{key}: {name}", figure, value.get(name))

    return handle
