"""Which of the verified rows make the benchmark, and how it is written. Pure but for the one file."""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timeloupe.data.build.record import BuiltRow
from timeloupe.data.build.stages.bench import BenchStage, reads_back
from timeloupe.data.build.stages.leaks import training
from timeloupe.data.build.stages.lots import lot
from timeloupe.data.check import question_key
from timeloupe.prompt.build import LETTERS, question_block
from timeloupe.reward import accuracy
from timeloupe.runs import write_atomic
from timeloupe.trajectory import Example

BENCH = "bench.jsonl"

_OF_PLACE = re.compile(
    r"(?i:\b(?:all|none|both|any|either|neither) (?:of )?(?:the )?(?:above|below|these|those|others?|options?)\b)"
    r"|\b[A-Z] (?:and|or|nor|&) [A-Z]\b|\b[Oo]ptions? \(?[A-Z]\b"
)
"""Options that speak of others by their place or letter: their order is left as it is."""


def choose(rows: Sequence[BuiltRow], part: BenchStage) -> list[BuiltRow]:
    """Return the rows of the benchmark in their order, with their options in the order of the benchmark.

    Each bin of length has the same number of rows where there are as many, no video more than ``per_video``, and no
    question stands twice on a video. What is taken depends on ``seed`` and the rows, not on their order.
    """
    bins = in_bins(rows, part)
    fullest = part.per_bin or min((len(one) for one in bins if one), default=0)
    taken = [row for one in bins for row in one[:fullest]]
    places = _places(taken, part.seed)
    ordered = {row.id: _reordered(row, places[row.id], part.seed) for row in taken if row.id in places}
    wanted = {row.id for row in taken}
    return [ordered.get(row.id, row) for row in rows if row.id in wanted]


def in_bins(rows: Sequence[BuiltRow], part: BenchStage) -> list[list[BuiltRow]]:
    """Return what may be taken of each bin, in the order in which to take it: all videos once, then all twice."""
    found: list[list[tuple[int, str, BuiltRow]]] = [[] for _ in range(len(part.edges) + 1)]
    of_video: Counter[str] = Counter()
    asked: set[tuple[str, str]] = set()
    for key, row in sorted(((lot(part.seed, row.id), row) for row in rows), key=lambda one: one[0]):
        video = row.example.video
        question = (video, question_key(row.example.question))
        if question in asked or of_video[video] == part.per_video:
            continue
        asked.add(question)
        of_bin = bisect_right(part.edges, row.figures["duration_seconds"])
        found[of_bin].append((of_video[video], key, row))
        of_video[video] += 1
    return [[row for _, _, row in sorted(one, key=lambda each: each[:2])] for one in found]


def bin_names(edges: Sequence[float]) -> list[str]:
    """Return what the bins of length are called, in minutes."""
    marks = [f"{edge / 60:g}" for edge in edges]
    if not marks:
        return ["all"]
    between = [f"{low}-{high} min" for low, high in zip(marks, marks[1:], strict=False)]
    return [f"<{marks[0]} min", *between, f">={marks[-1]} min"]


def _places(rows: Sequence[BuiltRow], seed: int) -> dict[str, int]:
    """Return at which place, from 0, the right option of each row is to stand; rows of a fixed order have none.

    Among the rows with the same number of options every place is used as often, give or take one: otherwise the number
    of options would tell something about the letter.
    """
    places: dict[str, int] = {}
    overall: Counter[int] = Counter()
    counts: dict[int, Counter[int]] = {}
    loose: list[BuiltRow] = []
    for row in rows:
        if is_fixed(row.example):
            place = _right_place(row.example)
            counts.setdefault(len(row.example.options), Counter())[place] += 1
            overall[place] += 1
        else:
            loose.append(row)
    for row in sorted(loose, key=lambda row: (len(row.example.options), lot(seed, "place", row.id))):
        number = len(row.example.options)
        count = counts.setdefault(number, Counter())
        place = min(range(number), key=lambda at: (count[at], overall[at], lot(seed, "tie", row.id, str(at))))
        places[row.id] = place
        count[place] += 1
        overall[place] += 1
    return places


def is_fixed(example: Example) -> bool:
    """Return whether the options must keep their order: one of them, or the question, speaks of places or letters."""
    return any(_OF_PLACE.search(text) for text in (example.question, *example.options))


def _right_place(example: Example) -> int:
    letter = accuracy.true_letter(example)
    assert letter is not None, "a verified row has a right option"
    return LETTERS.index(letter)


def _reordered(row: BuiltRow, place: int, seed: int) -> BuiltRow:
    """Return a row with its right option at a place and the others shuffled; its replies are of the old order."""
    example = row.example
    right = _right_place(example)
    others = [at for at in range(len(example.options)) if at != right]
    others.sort(key=lambda at: lot(seed, "option", row.id, str(at)))
    order = [*others[:place], right, *others[place:]]
    made = example.model_copy(
        update={"options": tuple(example.options[at] for at in order), "answer": LETTERS[place]}
    )
    if order == list(range(len(order))) or not reads_back(made):
        return row
    asked = "".join(LETTERS[at] for at in order)
    return row.model_copy(update={"example": made, "detail": f"its options were asked as {asked}"})


def bench_record(row: BuiltRow) -> dict[str, Any]:
    """Return a row as VideoTemp-Bench has it, with its id."""
    example = row.example
    segment = example.segments[0]
    place = _right_place(example)
    return {
        "id": row.id,
        "videos": [example.video],
        "question": question_block(example),
        "answer": f"{LETTERS[place]}. {example.options[place]}",
        "duration": row.figures["duration_seconds"],
        "timestamp": [segment.start_seconds, segment.end_seconds],
    }


def write_bench(
    folder: Path, rows: Sequence[BuiltRow], handed_on: Sequence[BuiltRow], part: BenchStage
) -> dict[str, Any]:
    """Write ``bench.jsonl`` and return what it holds: rows of each bin, right letters, and what is fewer than asked."""
    lines = [json.dumps(bench_record(row), ensure_ascii=False, allow_nan=False) + "\n" for row in handed_on]
    write_atomic(folder / BENCH, "".join(lines).encode())
    names = bin_names(part.edges)

    def count(some: Sequence[BuiltRow]) -> Counter[str]:
        return Counter(names[bisect_right(part.edges, row.figures["duration_seconds"])] for row in some)

    kept, taken = count([row for row in rows if row.kept]), count(handed_on)
    letters = Counter(accuracy.true_letter(row.example) for row in handed_on)
    notes = [f"{BENCH}: " + ", ".join(f"{taken[name]} of {kept[name]} {name}" for name in names)]
    if part.per_bin is not None:
        short = [f"{taken[name]} {name}" for name in names if taken[name] < part.per_bin]
        notes += [f"fewer than the {part.per_bin} asked for: {', '.join(short)}"] if short else []
    else:
        empty = [name for name in names if not taken[name]]
        notes += [f"no question at all: {', '.join(empty)}"] if empty else []
    passed = [row for row in rows if row.kept]
    mute = sum(
        0.0 in (row.figures.get("blind_answered"), row.figures.get("whole_answered")) for row in passed
    )
    if mute:
        notes.append(
            f"{mute} of {len(passed)} verified rows: a control got no answer at all, so it tested nothing"
        )
    absent = training(part.train).absent
    if absent:
        notes.append(f"{absent} videos of the training rows are not there: they were compared by name alone")
    return {
        "bins": {name: {"kept": kept[name], "handed_on": taken[name]} for name in names},
        "letters": {letter: letters[letter] for letter in sorted(map(str, letters))},
        "videos": len({row.example.video for row in handed_on}),
        "notes": notes,
    }
