"""Read predictions: a run folder, JSONL lines, one JSON object, or the layout of an official script."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timeloupe.errors import MissingError, RecordError, boundary
from timeloupe.eval.files.records import parse_json
from timeloupe.eval.scoring import Benchmark, Row
from timeloupe.runs import TRAJECTORIES, open_run
from timeloupe.trajectory import StopReason, Trajectory, read_trajectories

IDS = ("id", "qid", "question_id", "uid")
TEXTS = ("prediction", "text", "response")
KNOWN = 'every benchmark takes a run folder, JSONL of {"id": ..., "prediction": "text"}, JSON of {id: text}'


@dataclass(frozen=True)
class Loaded:
    """Predictions of a file.

    Attributes:
        by_id: Row id -> text, or what else the file holds.
        faults: Reason -> number of episodes that a run has without an answer: ``machine``, ``format``, ...
        unknown: Ids that the benchmark does not have.
        repeated: Lines whose id came before; the last one stands.
        layout: How the file was read, in words.
    """

    by_id: dict[str, Any]
    layout: str
    faults: dict[str, int] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()
    repeated: int = 0


def read_predictions(path: Path, benchmark: Benchmark, rows: Sequence[Row]) -> Loaded:
    """Return the predictions of a file or run folder.

    An episode that ended without an answer has the text "": every scorer counts it as it counts an empty reply. One
    that the machine's fault ended has none at all and is missing.

    Raises:
        MissingError: There is nothing at ``path``.
        RecordError: It is in no layout that is known; the message says which are.
        ConfigError: Not one id is a row of the benchmark.
    """
    if not path.exists():
        raise MissingError(
            f"no predictions at {str(path)!r}, expected a run folder, a .jsonl or a .json file"
        )
    loaded = _read(path, benchmark, rows)
    known = {row.id for row in rows}
    unknown = tuple(id for id in loaded.by_id if id not in known)
    if loaded.by_id and len(unknown) == len(loaded.by_id):
        raise boundary(
            f"ids of {str(path)!r}", unknown[0], f"ids of {benchmark.name}, such as {next(iter(known), None)!r}",
            "check that predictions and annotations are of one benchmark and split",
        )  # fmt: skip
    return Loaded(loaded.by_id, loaded.layout, loaded.faults, unknown, loaded.repeated)


def _read(path: Path, benchmark: Benchmark, rows: Sequence[Row]) -> Loaded:
    if path.is_dir():
        if (path / TRAJECTORIES).is_file():
            return of_episodes(open_run(path).latest(), f"run folder, {TRAJECTORIES}")
    else:
        found = _generic(path)
        if found is not None:
            return found
    if benchmark.read_predictions is not None:
        try:
            found = benchmark.read_predictions(path, rows)
        except (MissingError, RecordError) as error:
            # A folder that is no run is handed on too, and "no file at" it would say nothing of runs.
            raise type(error)(
                f"{error} (read as what the scripts of {benchmark.name} take; {KNOWN})"
            ) from error
        return Loaded(dict(found), f"layout of the scripts of {benchmark.name}")
    raise RecordError(f"{str(path)!r} is in no layout that is known for {benchmark.name}; {KNOWN}")


def _generic(path: Path) -> Loaded | None:
    """A file of trajectories, of our lines, or of one object {id: text}; ``None`` if it is none of them."""
    first = first_object(path)
    if first is not None and {"schema_version", "example", "turns"} <= first.keys():
        return of_episodes(list(read_trajectories(path)), "JSONL of trajectories")
    if first is not None and _key(first, IDS) and _key(first, TEXTS[:1]):
        return _of_lines(path)
    try:
        whole = parse_json(path.read_text(encoding="utf-8-sig"))
    except (ValueError, UnicodeDecodeError):
        return None
    if not isinstance(whole, dict) or any(">>>" in key for key in whole):
        return None  # keys of lmms-eval and TimeLens are no ids
    if whole and all(isinstance(value, str | None) for value in whole.values()):
        return Loaded({str(key): value for key, value in whole.items()}, "JSON of {id: text}")
    return None


def of_episodes(episodes: Sequence[Trajectory], layout: str) -> Loaded:
    """Return the predictions of episodes: the last reply of each, "" where it ended without an answer."""
    found: dict[str, Any] = {}
    faults: Counter[str] = Counter()
    repeated = 0
    for episode in episodes:
        repeated += episode.example.id in found
        if episode.stop is StopReason.INFRASTRUCTURE:
            faults["machine"] += 1
            continue
        if episode.answer is None:
            faults[episode.stop.value] += 1
        found[episode.example.id] = episode.turns[-1].generation.text if episode.answer is not None else ""
    return Loaded(found, layout, dict(faults), repeated=repeated)


def _of_lines(path: Path) -> Loaded:
    found: dict[str, Any] = {}
    repeated = 0
    for number, line in _lines(path):
        id, text = _key(line, IDS), _key(line, TEXTS[:1])
        if id is None or text is None:
            raise RecordError(
                f"{path}:{number} has keys {sorted(line)[:8]}, needs one of {', '.join(IDS)} and {TEXTS[0]!r}"
            )
        repeated += str(line[id]) in found
        found[str(line[id])] = line[text]
    return Loaded(found, 'JSONL of {"id", "prediction"}', repeated=repeated)


def _key(line: dict[str, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if name in line), None)


def first_object(path: Path) -> dict[str, Any] | None:
    """Return the first line of a file as a JSON object; ``None`` if it is none."""
    try:
        return next((line for _, line in _lines(path)), None)
    except RecordError:
        return None


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield number and object of each line that is not blank."""
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if number == 1:
                line = line.removeprefix(BOM_UTF8)
            if not line.strip():
                continue
            try:
                found = parse_json(line)
            except (ValueError, UnicodeDecodeError) as error:
                raise RecordError(f"{path}:{number} is not JSON: {error}") from error
            if not isinstance(found, dict):
                raise RecordError(f"{path}:{number} is no JSON object: {found!r:.80}")
            yield number, found
