"""Why an official script and the strict mode differ on a row, told from what each of them read.

Scripts are asked again as black boxes: with only one row, with another letter as the right one, or with only the part
of a reply that is its answer. Nothing here looks at how a prediction was made.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scoring_studies import LETTERS, TIMES, Figure, Study

from timeloupe.eval.extractors.letters import RANDOM_CHOICE, lmms_longvideobench
from timeloupe.eval.scoring import Predictions, Row, Scorer, Table, Window
from timeloupe.eval.scripts import grounding as scripts
from timeloupe.eval.scripts import grounding_tensors as tensors
from timeloupe.eval.scripts.errors import OfficialError
from timeloupe.eval.strict import answer_part, cut, read_windows
from timeloupe.prompt.option import MAX_OPTIONS

Values = Mapping[str, float]
"""Row id -> its share of the headline, 0 to 1; rows that are not in the denominator are not here."""

SAME = 0.005
ROUNDED = 0.06
"""Percent that a headline may be from the mean of its rows: scripts print one decimal at the least."""

UNREAD = "cannot be read by the script"
FORMS = (
    ("a clock time", re.compile(r"\d:\d\d")),
    ("start and end in words", re.compile(r"(?:start|begin).*\bend", re.IGNORECASE | re.DOTALL)),
    ("JSON", re.compile(r'"\w+"\s*:\s*\d')),
    ("[a, b]", re.compile(r"[\[(]\s*\d[\d.]*\s*,\s*\d")),
    ("units behind numbers", re.compile(r"\d\s*s(?:ec\w*)?\s*(?:-|to|and)\s*\d", re.IGNORECASE)),
    ("a to b", re.compile(r"\d\s*(?:to|and)\s*\d", re.IGNORECASE)),
    ("a - b", re.compile(r"\d\s*-\s*\d")),
)


def headline(table: Table, figure: Figure) -> float | None:
    """Return a headline in percent; ``None`` where the script ends before it."""
    if not figure.names:
        return figure.scale * mean(table.values, None, {}) if table.values else None
    found = [table.figures.get(name) for name in figure.names]
    if any(value is None for value in found):
        return None
    return figure.scale * sum(found) / len(found)


def mean(values: Values, group: str | None, rows: Mapping[str, Row]) -> float:
    """Return the mean of the values, or the mean over the groups of their means."""
    return sum(weight * values[id] for id, weight in weights(values, group, rows).items())


def weights(values: Values, group: str | None, rows: Mapping[str, Row]) -> dict[str, float]:
    """Return what each row counts in the mean."""
    names = {id: rows[id].groups[group] if group else "" for id in values}
    sizes = Counter(names.values())
    return {id: 1 / (len(sizes) * sizes[name]) for id, name in names.items()}


def row_values(
    study: Study, scorer: Scorer, table: Table, figure: Figure, judge: scripts.Judge | None = None
) -> Values | None:
    """Return each row's share of a headline, such that their mean is the headline.

    The script's own values, these at the threshold of a recall, or what it says of each row alone, whichever has the
    headline as its mean. ``None`` if none has: it is no mean over rows. Where the script ends before a headline, what
    its ``judge`` makes of each row, or what it says of each row alone.
    """
    rows = {row.id: row for row in study.rows}
    wanted = headline(table, figure)
    if wanted is None and judge is not None:
        return {row.id: judge(study.predictions[row.id], row.windows)[1] for row in study.rows}
    own = dict(table.values)
    tries: list[Callable[[], dict[str, float]]] = [
        lambda: dict(study.by_row.get(table.mode.removeprefix("official:"), {})),
        lambda: own,
        lambda: {id: float(value >= 0.5) for id, value in own.items()},
        lambda: {id: float(value > 0.5) for id, value in own.items()},
        lambda: _one_by_one(study, scorer, figure),
        lambda: dict.fromkeys(rows, 0.0) | _one_by_one(study, scorer, figure),
    ]
    for make in tries if wanted is not None else tries[4:5]:
        values = make()
        if values and (wanted is None or abs(100 * mean(values, study.mean_of, rows) - wanted) < ROUNDED):
            return values
    return None


def _one_by_one(study: Study, scorer: Scorer, figure: Figure) -> dict[str, float]:
    found: dict[str, float] = {}
    for row in study.rows:
        prediction = study.predictions.get(row.id)
        try:
            table = scorer([row], {} if prediction is None else {row.id: prediction})
        except OfficialError:
            continue
        name = next((name for name in figure.names if table.figures.get(name) is not None), None)
        if study.mean_of:
            name = name if len(figure.names) == 1 else _own_figure(row, study, figure)
        value = table.figures.get(name) if name else None
        if value is not None and table.num_scored:
            found[row.id] = value * figure.scale / 100
    return found


def _own_figure(row: Row, study: Study, figure: Figure) -> str | None:
    group = row.groups[str(study.mean_of)]
    return next((name for name in figure.names if group in name), None)


@dataclass(frozen=True)
class Reason:
    """What a class of rows does to the difference: strict minus official, in points of percent."""

    rows: int
    points: float


def explain(study: Study, script: str, official: Values, strict: Values) -> dict[str, Reason]:
    """Return class -> rows and points; the points sum up to the difference of the two means."""
    rows = {row.id: row for row in study.rows}
    ours, theirs = weights(strict, study.mean_of, rows), weights(official, study.mean_of, rows)
    differ = [row for row in study.rows if _differs(row, official, strict)]
    why = _classes(study, script, differ, official, strict)
    counts: Counter[str] = Counter()
    points: Counter[str] = Counter()
    rest = 0.0
    for row in study.rows:
        one, two = strict.get(row.id, 0.0), official.get(row.id, 0.0)
        weight = ours.get(row.id, 0.0)
        if row.id in why:
            counts[why[row.id]] += 1
            points[why[row.id]] += 100 * weight * (one - two)
        else:
            rest += 100 * weight * (one - two)
        shift = 100 * two * (weight - theirs.get(row.id, 0.0))
        points["the denominators differ"] += shift
    counts["the denominators differ"] = len(strict.keys() ^ official.keys())
    points["less than half a point on a row"] += rest
    return {
        name: Reason(counts[name], value)
        for name, value in sorted(points.items(), key=lambda item: -abs(item[1]))
        if counts[name] or abs(value) >= SAME
    }


def _differs(row: Row, official: Values, strict: Values) -> bool:
    if row.id not in official or row.id not in strict:
        return row.id in official or row.id in strict
    return abs(official[row.id] - strict[row.id]) > SAME


def _classes(
    study: Study, script: str, differ: Sequence[Row], official: Values, strict: Values
) -> dict[str, str]:
    """Return the class of each row that differs."""
    found: dict[str, str] = {}
    rest: list[Row] = []
    for row in differ:
        if study.predictions.get(row.id) is None:
            found[row.id] = "no prediction"
        elif row.id not in strict:
            found[row.id] = "label unusable: unscored by strict"
        elif row.id not in official and study.kind != LETTERS:
            found[row.id] = "left out by the script"
        else:
            rest.append(row)
    if study.kind == LETTERS:
        found |= _letter_classes(study, script, rest, official)
    elif study.kind == TIMES:
        read = READINGS[script]
        tagged = script in TAGGED
        found |= {row.id: _time_class(read, row, study.predictions[row.id], tagged) for row in rest}
    else:
        found |= {row.id: _other_class(study, row, strict[row.id] > official[row.id]) for row in rest}
    return found


# -- times -------------------------------------------------------------------------------------------------------------

Reading = Callable[[str], Window | None]
"""A reply -> the segment that a script scores."""


def _judged(judge: scripts.Judge) -> Reading:
    def read(text: str) -> Window | None:
        try:
            return judge(text, [(0.0, 1.0)])[0]
        except OfficialError:
            return None

    return read


def _of_museg(tagged: bool) -> Reading:
    def read(text: str) -> Window | None:
        found = tensors.museg_segments(text, tagged=tagged)
        return found[0] if found else None

    return read


READINGS: dict[str, Reading] = {
    "taro": _judged(scripts.judge_taro),
    "time-r1": _judged(scripts.judge_time_r1),
    "timelens": _judged(
        scripts.judge_lmms_timelens
    ),  # the same reading, without the exception of an empty hull
    "lmms-eval-timelens": _judged(scripts.judge_lmms_timelens),
    "lmms-eval": _judged(scripts.judge_lmms),
    "lmms-eval-tvg": _judged(scripts.judge_lmms_tvg),
    "timesuite": _judged(scripts.judge_timesuite),
    "videotemp-o3": _judged(scripts.judge_videotemp),
    "etbench": _judged(tensors.judge_etbench),
    "museg": _of_museg(True),
    "museg-untagged": _of_museg(False),
    "museg-tal": _of_museg(True),
}
TAGGED = ("museg", "museg-tal")

JUDGES: dict[str, scripts.Judge] = {"videotemp-o3": scripts.judge_videotemp}
"""Scripts that end with an exception where a length has no video, though they have judged all rows."""


def _time_class(read: Reading, row: Row, text: str, tagged: bool) -> str:
    segment = read(text)
    windows, why = read_windows(text, row)
    free, _ = read_windows(text, replace(row, duration_seconds=None))
    answer = answer_part(text)
    if segment is None:
        if tagged and (text.count("<answer>") != 1 or text.count("</answer>") != 1):
            return f"{UNREAD}: not one pair of answer tags"
        form = next((name for name, pattern in FORMS if pattern.search(answer)), "another form")
        return f"{UNREAD}: {form}"
    if why == "unparsed":
        return "read by the script, unparsed in strict mode"
    if why == "outside":
        return "all of it past the video's end"
    if segment[0] > segment[1] and _near(free, segment[::-1]):
        return "reversed, 0 for the script"
    if _near(free, segment):
        return _same_numbers(row, windows, free)
    if _near(free, (abs(segment[0]), abs(segment[1]))):
        return "other numbers: a hyphen read as minus"
    again = read(f"<answer>{answer}</answer>" if tagged else answer)
    if again != segment:
        return "other numbers: from outside the answer"
    if re.search(r"\d:\d\d", answer):
        return "other numbers: a clock time taken apart"
    if any(all(two == int(one) for one, two in zip(window, segment, strict=True)) for window in free):
        return "other numbers: decimals cut off"
    return "other numbers"


def _same_numbers(row: Row, windows: Sequence[Window], free: Sequence[Window]) -> str:
    if len(free) > 1:
        return "several windows, of which the script takes one"
    if len(row.windows) > 1:
        return "several true windows: the script takes the first or the best"
    if windows != free:
        return "past the video's end, cut in strict mode"
    if cut(row.windows, row.duration_seconds) != tuple(row.windows):
        return "true window past the video's end, cut in strict mode"
    return "same numbers, measured otherwise"


def _near(windows: Sequence[Window], segment: Sequence[float]) -> bool:
    return any(abs(one[0] - segment[0]) < 0.01 and abs(one[1] - segment[1]) < 0.01 for one in windows)


def _other_class(study: Study, row: Row, better: bool) -> str:
    """The class of a row whose reading is not asked for: what strict mode says of it, else which way it differs."""
    given = study.given(study.predictions[row.id])
    if isinstance(given, list) and given and isinstance(given[0], list):
        scores = [one[2] for one in given if len(one) > 2]
        if scores and max(scores) != given[0][2]:
            return "the first window is not the one with the best score"
        if any(one[0] > one[1] for one in given):
            return "reversed, 0 for the script"
    if isinstance(given, list) and len(given) == 2 and given[0] == given[1]:
        return "a window of no length"
    if isinstance(given, str) and re.search(r"\d-\d", answer_part(given)):
        return "other numbers: a hyphen read as minus"
    cut_off = _past_end(given, row)
    if cut_off:
        return cut_off
    if len(row.windows) > 1:
        return "several true windows, compared otherwise"
    return f"measured or read otherwise, {'more' if better else 'less'} in strict mode"


def _past_end(given: Any, row: Row) -> str:
    if row.duration_seconds is None or given is None or isinstance(given, dict):
        return ""
    windows, why = read_windows(given, row)
    free, _ = read_windows(given, replace(row, duration_seconds=None))
    if why == "unparsed":
        return "unparsed in strict mode"
    return "past the video's end, cut in strict mode" if windows != free else ""


# -- letters -----------------------------------------------------------------------------------------------------------


def _letter_classes(study: Study, script: str, rows: Sequence[Row], official: Values) -> dict[str, str]:
    scorer = study.benchmark.official[script]
    accepted = _accepted(study, scorer, rows, lambda text: text)
    of_answer = _accepted(study, scorer, rows, answer_part)
    of_nothing = _accepted(study, scorer, rows, lambda text: "~ ~")
    ours = _accepted(study, study.benchmark.strict, rows, lambda text: text)
    drawn = study.benchmark.name == "longvideobench" and script == "lmms-eval"
    found: dict[str, str] = {}
    for row in rows:
        text = study.predictions[row.id]
        if row.id not in official:
            found[row.id] = "left out by the script, " + ("readable" if ours[row.id] else "unparsed")
        elif drawn and lmms_longvideobench(text) == RANDOM_CHOICE:
            found[row.id] = "drawn at random by the script"
        else:
            letter = min(ours[row.id], default=None)
            sets = (accepted[row.id], of_answer[row.id], of_nothing[row.id])
            found[row.id] = _letter_class(text, letter, *sets)
    return found


def _letter_class(
    text: str,
    letter: str | None,
    accepted: frozenset[str],
    of_answer: frozenset[str],
    of_nothing: frozenset[str],
) -> str:
    answer = answer_part(text)
    if letter is None:
        return "a letter for the script, unparsed in strict mode"
    if not accepted:
        if letter in of_answer:
            return f"{UNREAD}: text before the answer"
        capital = re.search(rf"(?<![A-Za-z]){letter}(?![A-Za-z])", answer)
        lower = re.search(rf"(?<![A-Za-z]){letter.lower()}(?![A-Za-z])", answer)
        if not capital and not lower:
            return f"{UNREAD}: the option's words"
        return f"{UNREAD}: " + ("more than the letter" if capital else "lower case")
    if len(accepted) > 1:
        return "several letters count for the script"
    if letter in accepted:
        return "same letter, marked otherwise"
    if accepted == of_nothing:
        return "another letter: what the script takes where it reads none"
    return f"another letter: {'from before the answer' if letter in of_answer else 'elsewhere in the text'}"


def _accepted(
    study: Study, scorer: Scorer, rows: Sequence[Row], change: Callable[[str], str]
) -> dict[str, frozenset[str]]:
    """Return which letters a scorer would count as right for each row's reply, changed as said."""
    texts: Predictions = {id: change(text) for id, text in study.predictions.items() if isinstance(text, str)}
    most = max((len(row.options) or MAX_OPTIONS for row in study.rows), default=0)
    right: dict[str, set[str]] = {row.id: set() for row in rows}
    for letter in map(chr, range(ord("A"), ord("A") + most)):
        try:
            values = scorer([_labelled(row, letter) for row in study.rows], texts).values
        except OfficialError:
            values = _one_row_each(scorer, [_labelled(row, letter) for row in rows], texts)
        for id in right:
            if values.get(id, 0.0) > 0.5:
                right[id].add(letter)
    return {id: frozenset(letters) for id, letters in right.items()}


def _one_row_each(scorer: Scorer, rows: Sequence[Row], texts: Predictions) -> dict[str, float]:
    found: dict[str, float] = {}
    for row in rows:
        try:
            found |= scorer([row], {row.id: texts[row.id]}).values
        except OfficialError:
            continue
    return found


def _labelled(row: Row, letter: str) -> Row:
    """The row with another right answer; one that it has no option for stays out of reach."""
    raw = dict(row.raw) | {"answer": letter, "right_answer": letter, "p": ord(letter) - ord("A")}
    return replace(row, answer=letter, raw=raw)
