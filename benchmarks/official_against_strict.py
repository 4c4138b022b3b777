"""What the official scripts and the strict mode make of the same predictions, and why they differ.

    python benchmarks/official_against_strict.py EVALDATA [NAME ...] [--record]

EVALDATA holds a folder per benchmark with its annotations and a ``reference*.json`` with predictions. Prints one table
(each script's headline figure beside ours, and what is had without looking) and, for each difference of more than a
point, the rows on which the two disagree by reason. The points of all reasons of a script sum up to its difference.

With --record it writes the table between the marks of docs/scoring.md, the plots to
docs/scoring/{times,letters}.png, and the figures to docs/results.json. That needs all references.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import dataclass
from pathlib import Path

from record import record
from scoring_plot import plot
from scoring_reasons import JUDGES, Reason, explain, headline, mean, row_values
from scoring_studies import TIMES, Study, studies

from timeloupe.eval.baselines import baselines
from timeloupe.eval.predictions import Loaded
from timeloupe.eval.scoreboard import official_table, score
from timeloupe.eval.scoring import Table

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = DOCS / "scoring.md"
TOLD = 1.0
"""Points of difference from which reasons are printed."""


@dataclass(frozen=True)
class Line:
    """One script on one study.

    Attributes:
        script: Its short name.
        table: What it returned.
        percent: Its headline; of its functions row by row where it ends with an exception (``table.error``).
        scored: Rows in that figure's denominator.
        reasons: Why it differs from the strict figure; ``None`` where the headline is no mean over rows.
    """

    script: str
    table: Table
    percent: float | None
    scored: int
    reasons: dict[str, Reason] | None


@dataclass(frozen=True)
class Outcome:
    """Everything about one study."""

    study: Study
    strict: float
    table: Table
    lines: list[Line]
    trivial: dict[str, float]


def main() -> None:
    """Compare all references under a folder, or the named ones."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("evaldata", type=Path, help="folder of benchmark folders with reference*.json")
    parser.add_argument("names", nargs="*", help="benchmarks; default: all")
    parser.add_argument(
        "--record", action="store_true", help="write docs/scoring.md, its plots, docs/results.json"
    )
    options = parser.parse_args()
    if options.record and options.names:
        raise SystemExit("--record writes the table of all benchmarks: leave the names away")
    found: list[Outcome] = []
    for path in sorted(options.evaldata.glob("*/reference*.json")):
        reference = json.loads(path.read_text(encoding="utf-8"))
        if "benchmark" not in reference or (options.names and reference["benchmark"] not in options.names):
            continue  # the reference of the extractors has texts, not answers to questions
        for study in studies(reference, options.evaldata):
            found.append(outcome(study))
            print("\n".join([row_of(found[-1]), *told(found[-1])]), flush=True)
    if not found:
        raise SystemExit(f"no reference*.json of a benchmark under {options.evaldata}")
    if options.record:
        write(found)


def outcome(study: Study) -> Outcome:
    """Return what all scripts and the strict mode say."""
    predictions = dict(study.predictions)
    board = score(study.benchmark, study.rows, Loaded(predictions, "reference"), "strict")
    (strict,) = board.tables
    ours = row_values(study, study.benchmark.strict, strict, study.strict)
    by_id = {row.id: row for row in study.rows}
    lines: list[Line] = []
    for script, figure in study.official.items():
        table = official_table(study.benchmark, script, study.rows, Loaded(predictions, "reference"))
        judge = JUDGES.get(script) if study.kind == TIMES else None
        values = row_values(study, study.benchmark.official[script], table, figure, judge)
        percent = headline(table, figure)
        if percent is None and values:
            percent = 100 * mean(values, study.mean_of, by_id)
        reasons = explain(study, script, values, ours) if values and ours else None
        lines.append(Line(script, table, percent, len(values) if values else table.num_scored, reasons))
    guesses = baselines(study.rows) if study.trivial is None else study.trivial
    trivial = {
        name: study.benchmark.strict([row for row in study.rows if row.id in given], given)
        for name, given in guesses.items()
    }
    unseen = {name: headline(table, study.strict) for name, table in trivial.items()}
    whole = headline(strict, study.strict)
    assert whole is not None, f"{study.name} has no {study.strict.names}"
    return Outcome(
        study, whole, strict, lines, {name: one for name, one in unseen.items() if one is not None}
    )


# -- words -------------------------------------------------------------------------------------------------------------

HEAD = [
    "| benchmark, figure | strict, % | what each script says, % | without looking, strict, % |",
    "|---|---|---|---|",
]


def row_of(one: Outcome) -> str:
    """Return the study as one row of the table."""
    total = len(one.study.rows)
    ours = f"**{one.strict:.2f}**" + _of(one.table.num_scored, total)
    scripts = [
        f"{line.script} " + ("-" if line.percent is None else f"{line.percent:.2f}")
        + ("*" if line.table.error else "") + _of(line.scored, total)
        for line in one.lines
    ]  # fmt: skip
    unseen = ", ".join(f"{name} {percent:.1f}" for name, percent in one.trivial.items())
    return f"| **{one.study.name}**, {one.study.title} | {ours} | {' · '.join(scripts)} | {unseen} |"


def _of(count: int, total: int) -> str:
    return "" if count == total else f" ({count} of {total})"


def told(one: Outcome) -> list[str]:
    """Return why each script that is more than a point from the strict figure is: a line per script."""
    found: list[str] = []
    for line in one.lines:
        why = reasons(one, line)
        if line.table.error:
            why.insert(0, f"ends with `{line.table.error}`")
        if why and line.percent is not None:
            found.append(f"- **{line.script}**, strict is {one.strict - line.percent:+.2f}: {'; '.join(why)}")
    return found


def folded(one: Outcome) -> str:
    """Return the reasons of a study as a part of the page that opens on a click, or "" if there are none."""
    lines = told(one)
    if not lines:
        return ""
    title = f"<summary>{one.study.name}, {one.study.title}</summary>"
    return "\n".join(["<details>", title, "", *lines, "", "</details>"])


def reasons(one: Outcome, line: Line) -> list[str]:
    """Return why a script is more than a point from the strict figure, what moves most first."""
    if line.percent is None or abs(one.strict - line.percent) <= TOLD:
        return []
    if line.reasons is None:
        return ["not counted: the rows' shares of the figure cannot be had one by one"]
    return [
        f"{reason.rows} {words} ({reason.points:+.2f})"
        for words, reason in line.reasons.items()
        if abs(reason.points) >= 0.05
    ]


def write(found: list[Outcome]) -> None:
    """Write the page, the plots and the record."""
    page = PAGE.read_text(encoding="utf-8")
    page = placed(page, "table", "\n".join([*HEAD, *map(row_of, found)]))
    page = placed(page, "reasons", "\n\n".join(filter(None, map(folded, found))))
    (DOCS / "scoring").mkdir(exist_ok=True)
    plots = []
    for kind in ("times", "letters"):
        some = [one for one in found if (one.study.title == "accuracy") == (kind == "letters")]
        dots = {
            f"{one.study.name}, {one.study.title}": (
                {line.script: line.percent for line in one.lines if line.percent is not None},
                one.strict,
                one.trivial,
            )
            for one in some
        }
        plot(dots, DOCS / "scoring" / f"{kind}.png")
        plots.append(f"scoring/{kind}.png")
    PAGE.write_text(page, encoding="utf-8")
    figures = {
        f"{one.study.name}, {one.study.title}": {line.script: line.percent for line in one.lines}
        | {"strict": one.strict}
        for one in found
    }
    record(
        "official_against_strict", title="Official scripts against the strict mode",
        command="python benchmarks/official_against_strict.py EVALDATA --record", seeds=[0],
        n=sum(len(one.study.rows) for one in found), plots=plots,
        figures={
            f"{name}: {script}": {"percent": percent}
            for name, row in figures.items() for script, percent in row.items()
        },
        notes=["Percent; docs/scoring.md says what each line is, with denominators and reasons.",
               "Predictions are made up with many forms of answers, but for those named \"authors'\": the figures "
               "compare scripts, not models."],
    )  # fmt: skip


def placed(page: str, name: str, text: str) -> str:
    """Return the page with ``text`` between the marks of ``name``."""
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(page):
        raise SystemExit(f"{PAGE} has no place for the {name}: it needs the lines {start} and {end}")
    return pattern.sub(lambda _: f"{start}\n\n{text}\n\n{end}", page)


if __name__ == "__main__":
    main()
