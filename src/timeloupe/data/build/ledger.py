"""The folder of a build.

::

    BUILD/config.json              the resolved recipe, less how its labeller is reached; another one is refused
    BUILD/environment.json         versions, platform and commit of every session
    BUILD/STAGE/rows.jsonl         one ``BuiltRow`` per item, kept or not, appended and flushed as it ends
    BUILD/STAGE/again.jsonl        rows that were taken out of it to be made again: they were paid for
    BUILD/STAGE/kept.jsonl         what the stage has made, in the order of its items, once it is complete
    BUILD/trajectories.jsonl       the episodes of all stages: ``view``, ``data convert`` and ``train sft`` read them
    BUILD/examples.jsonl           the rows that stages without episodes have kept, one ``Example`` a line
    BUILD/captions.jsonl           captions by video, as TaRO's constructive exploration reads them
    BUILD/summary.json             counts, reasons, tokens, cost and time of every stage

``kept.jsonl`` and all that is not in a stage's folder are made from the rows, so they may be deleted. A killed process
leaves at most one torn line; the next writer cuts it off. A row that a machine's fault ended is not done, and is made
again by a resumed build.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from timeloupe.data.build.record import FAULT, VIDEO, BuiltRow
from timeloupe.runs import append_records, read_appended, repair_appended, write_atomic, write_json
from timeloupe.trajectory import Example, Record, to_line

ROWS, AGAIN, KEPT = "rows.jsonl", "again.jsonl", "kept.jsonl"
EXAMPLES, CAPTIONS, SUMMARY = "examples.jsonl", "captions.jsonl", "summary.json"


class StageLedger:
    """The rows of one stage on disk.

    Args:
        folder: The stage's folder; made. A torn last line is cut off.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.path = folder / ROWS
        repair_appended(self.path, BuiltRow)

    def append(self, row: BuiltRow) -> None:
        """Add a row and hand it to the operating system before returning."""
        append_records(self.path, [row])

    def rows(self) -> dict[str, BuiltRow]:
        """Return the rows by id, the last line of each, in the order in which they first came.

        Raises:
            RecordError: A whole line is no row.
        """
        return {row.id: row for row in read_appended(self.path, BuiltRow)}

    def earlier(self) -> list[BuiltRow]:
        """Return the rows that were taken out to be made again.

        Raises:
            RecordError: A whole line is no row.
        """
        return list(read_appended(self.folder / AGAIN, BuiltRow))

    def take_out(self, *, videos: bool = False) -> int:
        """Take out the rows that are to be made again, and older lines of an id; return how many those rows were.

        Args:
            videos: Also those whose video could not be read, not only those that a machine's fault ended.
        """
        again = {FAULT, VIDEO} if videos else {FAULT}
        rows = self.rows()
        good = [row for row in rows.values() if row.reason not in again]
        bad = [row for row in rows.values() if row.reason in again]
        if bad:
            # First: a kill in between leaves a row in both files, and the next time it is found there.
            repair_appended(self.folder / AGAIN, BuiltRow)
            there = {to_line(row) for row in self.earlier()}
            append_records(self.folder / AGAIN, [row for row in bad if to_line(row) not in there])
        if self.path.is_file() and (bad or _num_lines(self.path) > len(rows)):
            write_atomic(self.path, _lines(good))
        return len(bad)

    def finish(
        self, items: Sequence[Example], choose: Callable[[Sequence[BuiltRow]], Sequence[BuiltRow]]
    ) -> list[BuiltRow]:
        """Write ``kept.jsonl`` with what ``choose`` takes of the kept rows, which it gets in the order of the items."""
        rows = self.rows()
        kept = list(choose([rows[one.id] for one in items if one.id in rows and rows[one.id].kept]))
        write_atomic(self.folder / KEPT, _lines(kept))
        return kept


def write_products(folder: Path, stages: Mapping[str, Sequence[BuiltRow]]) -> dict[str, int]:
    """Write the files that others read from the kept rows of all stages; return how many lines each has.

    An episode that two stages have kept of one example stands once, as the later one made it; the same for captions.
    """
    episodes: dict[str, Record] = {}
    examples: dict[str, Record] = {}
    captions: dict[str, bytes] = {}
    for rows in stages.values():
        for row in rows:
            if row.trajectory is not None:
                episodes.pop(row.trajectory.example.id, None)
                episodes[row.trajectory.example.id] = row.trajectory
            elif row.captions:
                captions[row.example.video] = _caption_line(row)
            else:
                examples[row.id] = row.example
    found: dict[str, int] = {}
    for name, records in (("trajectories.jsonl", episodes), (EXAMPLES, examples)):
        write_atomic(folder / name, _lines(list(records.values())))
        found[name] = len(records)
    write_atomic(folder / CAPTIONS, b"".join(captions.values()))
    return found | {CAPTIONS: len(captions)}


def _caption_line(row: BuiltRow) -> bytes:
    spans = [
        {"segment": [one.segment.start_seconds, one.segment.end_seconds], "text": one.text}
        for one in row.captions
    ]
    return (json.dumps({"video": row.example.video, "captions": spans}, ensure_ascii=False) + "\n").encode()


def summarise(rows: Sequence[BuiltRow]) -> dict[str, Any]:
    """Return counts, reasons, tokens, cost (US dollars) and labelling time (seconds) of the rows of one stage.

    The time is that which each question waited, added up: those of one batch, and of several threads, wait together.
    """
    asked = [one for row in rows for one in row.asked]
    costs = [row.cost for row in rows]
    kept = sum(row.kept for row in rows)
    known = [one for one in costs if one is not None]
    cost = sum(known) if len(known) == len(costs) and any(one.cost is not None for one in asked) else None
    answered = [one for one in asked if one.finish != "error"]
    return {
        "items": len(rows),
        "kept": kept,
        "reasons": dict(Counter(row.reason for row in rows).most_common()),
        "asked": dict(Counter(one.purpose for one in asked).most_common()),
        "failed_calls": sum(one.tries - (one.finish != "error") for one in asked),
        "prompt_tokens": _sum(one.usage.prompt_tokens for one in answered),
        "completion_tokens": _sum(one.usage.completion_tokens for one in answered),
        "cost": cost,
        "cost_per_kept_row": cost / kept if cost is not None and kept else None,
        "labelling_seconds": round(sum(one.seconds for one in asked), 3),
    }


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Write ``summary.json``."""
    write_json(folder / SUMMARY, dict(summary))


def _sum(values: Iterator[int | None]) -> int | None:
    found = list(values)
    return None if None in found else sum(one for one in found if one is not None)


def _lines(records: Sequence[Record]) -> bytes:
    return b"".join((to_line(one) + "\n").encode() for one in records)


def _num_lines(path: Path) -> int:
    with path.open("rb") as lines:
        return sum(bool(line.strip()) for line in lines)
