"""What the official scripts of multiple-choice benchmarks share: who answered, who was right, printed percentages.

A script reads a file that its own inference wrote. A row without a prediction is a row that this file does not hold, so
it is in no denominator of an official figure; ``num_scored`` and ``failures`` say how many there are. The strict mode
counts it as wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from timeloupe.eval.scoring import Predictions, Row, Table
from timeloupe.eval.scripts.errors import OfficialError

VIDEOTEMP_O3 = "videotemp-o3"
LMMS_EVAL = "lmms-eval"
LMMS_EVAL_OLD = "lmms-eval-old"
VLMEVALKIT = "vlmevalkit"


@dataclass(frozen=True)
class Count:
    """How many of some rows are right."""

    right: int = 0
    total: int = 0

    def share(self, if_none: float | None = None) -> float:
        """Return the share that is right; ``if_none`` where there is no row.

        Raises:
            OfficialError: There is no row and no ``if_none``: the script divides by zero.
        """
        if self.total:
            return self.right / self.total
        return _or_raise(if_none)

    def percent(self, if_none: float | None = None) -> float:
        """Return 100 times ``right`` by ``total``, in this order, which decides the last digit.

        Raises:
            OfficialError: There is no row and no ``if_none``.
        """
        if self.total:
            return 100 * self.right / self.total
        return _or_raise(if_none)


@dataclass
class Marks:
    """What a script makes of each row that has a prediction.

    Attributes:
        by_row: (row, right or wrong, or ``None`` where the script leaves the row out).
        num_total: All rows.
        failures: Reason to number of rows.
    """

    by_row: list[tuple[Row, bool | None]]
    num_total: int
    failures: dict[str, int] = field(default_factory=dict)

    def count(self, among: Callable[[Row], bool] = lambda row: True) -> Count:
        """Return the count of the rows for which ``among`` holds."""
        rights = [right for row, right in self.by_row if right is not None and among(row)]
        return Count(sum(rights), len(rights))

    def by_group(self, name: str) -> dict[str, Count]:
        """Return the count of each value of a group, in the order in which they first come."""
        rights: dict[str, list[bool]] = {}
        for row, right in self.by_row:
            if right is not None and name in row.groups:
                rights.setdefault(row.groups[name], []).append(right)
        return {value: Count(sum(some), len(some)) for value, some in rights.items()}

    def table(self, script: str, figures: Mapping[str, Any], unit: str, first: Sequence[str] = ()) -> Table:
        """Return the table of a script's figures, those in ``first`` in front: what a reader looks for."""
        figures = {name: figures[name] for name in first} | dict(figures)
        values = {row.id: float(right) for row, right in self.by_row if right is not None}
        scored = sum(right is not None for _, right in self.by_row)
        return Table(
            f"official:{script}", figures, unit, scored, self.num_total,
            {why: count for why, count in self.failures.items() if count}, values,
        )  # fmt: skip


def marks(
    rows: Sequence[Row],
    predictions: Predictions,
    mark: Callable[[Row, str], bool | None],
    dropped: str = "unparsed",
) -> Marks:
    """Return the marks of all rows that have a prediction.

    Args:
        rows: The questions.
        predictions: Texts by row id.
        mark: (row, text) -> right or wrong, or ``None`` where the script leaves the row out.
        dropped: What rows that are left out are called among the failures.

    Raises:
        OfficialError: A prediction is no text; the scripts end with a ``TypeError`` or ``AttributeError`` then.
    """
    found: list[tuple[Row, bool | None]] = []
    missing = 0
    for row in rows:
        text = predictions.get(row.id)
        if text is None:
            missing += 1
        elif not isinstance(text, str):
            raise OfficialError("TypeError", f"the prediction of {row.id!r} is no text: {text!r:.80}")
        else:
            found.append((row, mark(row, text)))
    left_out = sum(right is None for _, right in found)
    return Marks(found, len(rows), {"missing": missing, dropped: left_out})


def printed(value: float, digits: int) -> float:
    """Return a figure as the script prints it."""
    return float(f"{value:.{digits}f}")


def printed_percent(share: float, digits: int) -> float:
    """Return a share as Python's ``%`` format prints it."""
    return float(f"{share:.{digits}%}"[:-1])


def _or_raise(if_none: float | None) -> float:
    if if_none is None:
        raise OfficialError("ZeroDivisionError", "division by zero")
    return if_none


def groups_of(rows: Iterable[Row], name: str) -> list[str]:
    """Return the values of a group in the order in which they first come."""
    return list(dict.fromkeys(row.groups[name] for row in rows if name in row.groups))
