"""Our own world: the questions that ``timeloupe world make`` writes, whose truth is exact."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from timeloupe.errors import MissingError, RecordError
from timeloupe.eval import strict
from timeloupe.eval.files.records import parse_json
from timeloupe.eval.scoring import Benchmark, Predictions, Row, Table
from timeloupe.trajectory import read_examples


def load(path: Path) -> list[Row]:
    """Return the rows of a folder of ``world make``, or of its examples.jsonl.

    Raises:
        MissingError: There is no such file.
        RecordError: A line is not a valid example, or there is none.
    """
    file = path / "examples.jsonl" if path.is_dir() else path
    if not file.is_file():
        raise MissingError(f"no examples at {str(file)!r}, make some with `timeloupe world make FOLDER`")
    durations = _durations(file.parent / "truth.jsonl")
    rows = [
        Row(
            id=example.id, video=example.video, question=example.question, task=example.task,
            options=example.options, answer=example.answer,
            windows=tuple((one.start_seconds, one.end_seconds) for one in example.segments),
            duration_seconds=durations.get(Path(example.video).name), groups={"task": example.task},
            raw=example.model_dump(),
        )
        for example in read_examples(file)
    ]  # fmt: skip
    if not rows:
        raise RecordError(f"{file} holds no example")
    return rows


def score(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return the strict figures of each task, their names behind the task's."""
    scorers = {"multiple_choice": strict.multiple_choice, "multi_segment": strict.multi_segment}
    figures: dict[str, float | None] = {}
    failures: dict[str, int] = {}
    values: dict[str, float] = {}
    scored = 0
    for task in dict.fromkeys(row.task for row in rows):
        some = [row for row in rows if row.task == task]
        table = scorers.get(task, strict.grounding)(some, predictions)
        figures |= {f"{task} {name}": value for name, value in table.figures.items() if "=" not in name}
        failures = {
            why: failures.get(why, 0) + table.failures.get(why, 0) for why in failures | dict(table.failures)
        }
        values |= table.values
        scored += table.num_scored
    return Table("strict", figures, "fraction", scored, len(rows), failures, values)


def _durations(truth: Path) -> dict[str, float]:
    """Length in seconds by name of the video file; empty where the truth is not beside the questions."""
    if not truth.is_file():
        return {}
    found: dict[str, float] = {}
    with truth.open(encoding="utf-8") as lines:  # only a newline ends a line here
        for number, line in enumerate(lines, 1):
            try:
                row = parse_json(line)
                found[Path(row["video"]).name] = float(row["duration_seconds"])
            except (ValueError, KeyError, TypeError) as error:
                raise RecordError(f"{truth}:{number} is no line of a world's truth: {error!r}") from error
    return found


BENCHMARK = Benchmark(
    name="world",
    title="timeloupe world",
    split="whatever the folder was made with; seeds 1000000 to 1999999 are for evaluation",
    files="the folder that `timeloupe world make` wrote, or its examples.jsonl",
    load=load,
    official={},
    strict=score,
)
