"""What the scripts of CG-Bench return: the authors' own, lmms-eval's, and VideoMind's.

The replies of ``miou`` are read and compared here; those of ``long_acc`` and ``clue_acc`` by
``extractors.letters_check``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from timeloupe.eval.extractors.letters_check import cgbench as check_letter
from timeloupe.eval.extractors.letters_check import cgbench_json
from timeloupe.eval.extractors.letters_search import mcq_extract
from timeloupe.eval.files.windows import is_number
from timeloupe.eval.scoring import Predictions, Row, Table, Window
from timeloupe.eval.scripts import videomind as videomind_script
from timeloupe.eval.scripts.errors import OfficialError
from timeloupe.eval.scripts.letters import LMMS_EVAL, marks

TASKS = ("long_acc", "clue_acc", "miou")
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5)
LMMS_LETTERS = "ABCDEFGHIJKLMN"

_NUMBER = re.compile(r"-?\d++\.?+\d*+")
_FAULTS = (TypeError, ValueError, IndexError, KeyError, AttributeError, OverflowError, RecursionError)


def judge_windows(text: str, truth: Sequence[Window]) -> float | None:
    """Return the IoU of the windows that a reply names, as unions; ``None`` where the script stores nothing.

    The first ``json`` fence's "result" is the list of windows. Without one, or if it is no such list, all numbers of
    the whole reply are taken in pairs; a hyphen before a digit is a minus sign, and an odd number of them is ``None``.
    No number at all is an empty list, whose IoU is 0.

    Source: CG-Bench/CG-Bench@f8266087 run/utils.py ``post_process``, mode miou.

    Raises:
        OfficialError: ``TypeError``, where windows of the second kind overlap: the script merges them in place, which
            tuples do not allow, and loses the record.
    """
    if not text:
        return None
    found, result = cgbench_json(text)
    if found:
        try:
            return _union_iou(result, truth)
        except _FAULTS:
            pass
    numbers = [float(number) for number in _NUMBER.findall(text)]
    if len(numbers) % 2:
        return None
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    if _merged(pairs)[1]:
        raise OfficialError("TypeError", "'tuple' object does not support item assignment")
    return _union_iou(pairs, truth)


def judge(task: str, row: Row, reply: Any) -> float | None:
    """Return what the authors' script stores for a reply: 1 or 0, or an IoU; ``None`` where it stores nothing.

    A number is what it has stored already. A record that the script loses to an exception is ``None`` too.
    """
    if is_number(reply):
        return float(reply)
    if not isinstance(reply, str):
        return None
    if task == "miou":
        try:
            return judge_windows(reply, row.raw.get("clue_intervals", row.windows))
        except OfficialError:
            return None
    return check_letter(reply, str(row.answer)) if reply else None


def stat_with_key(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return long_acc, clue_acc, miou, rec@iou and acc@iou of the authors' scripts, in fractions, with their counts.

    rec@iou: mean share of stored IoUs that reach 0.1 to 0.5 (>=). acc@iou: the same where the letter from the whole
    video is right as well, over the questions that have both. A reply of which nothing can be read is not stored and
    leaves the denominator.

    Source: CG-Bench/CG-Bench@f8266087 run/utils.py ``post_process``, run/stat_with_key.py. Faults: see
    ``judge_windows``; a reply in prose is right if the right letter is among all those it names.
    """
    stored = {task: _stored(task, rows, predictions) for task in TASKS}
    figures: dict[str, float] = {}
    for task, results in stored.items():
        figures |= _shares(task, "result", [sum(results.values())], len(results))
    ious, letters = stored["miou"], stored["long_acc"]
    hits = [sum(iou >= level for iou in ious.values()) for level in LEVELS]
    figures |= _shares("rec@iou", "iou_th", hits, len(ious))
    both = [id for id in ious if id in letters]
    hits = [sum(ious[id] >= level and letters[id] == 1 for id in both) for level in LEVELS]
    figures |= _shares("acc@iou", "th", hits, len(both))
    failures: Counter[str] = Counter()
    for task, results in stored.items():
        asked = [row.id for row in rows if _reply(task, predictions.get(row.id)) is not None]
        if asked and len(asked) > len(results):
            failures[f"{task} not stored"] = len(asked) - len(results)
    missing = sum(predictions.get(row.id) is None for row in rows)
    if missing:
        failures["missing"] = missing
    scored = len(set().union(*stored.values()))
    return Table("official:cgbench", figures, "fraction", scored, len(rows), dict(failures), letters)


def lmms(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return cgbench_accuracy, in percent, of the letters from the whole video.

    Source: EvolvingLMMs-Lab/lmms-eval@75571cfe lmms_eval/tasks/cgbench/utils.py. Letters A to N are looked for,
    whatever the question has; nothing read is wrong.
    """
    texts = {row.id: _reply("long_acc", predictions.get(row.id)) for row in rows}
    found = marks(
        rows, texts, lambda row, text: mcq_extract(text, LMMS_LETTERS) == str(row.answer).strip().upper()
    )
    return found.table(LMMS_EVAL, {"cgbench_accuracy": found.count().percent(if_none=0.0)}, "percent")


def videomind(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return VideoMind's CG-Bench figures of its first window, in percent with 2 decimals, and those by task.

    Source: yeliudev/VideoMind@6721d256 videomind/eval/eval_auto.py --dataset cgbench; see ``scripts.videomind``.
    """
    return _videomind("videomind", rows, predictions, videomind_script.cgbench_mode())


def videomind_confident(rows: Sequence[Row], predictions: Predictions) -> Table:
    """Return the same of all windows of more than 0.5 confidence (``--conf_thr 0.5``), and the first in any case."""
    return _videomind("videomind-confident", rows, predictions, videomind_script.cgbench_mode(0.5))


def _videomind(
    script: str, rows: Sequence[Row], predictions: Predictions, mode: videomind_script.Mode
) -> Table:
    samples: list[dict[str, Any]] = []
    values: dict[str, float] = {}
    for row in rows:
        prediction = predictions.get(row.id)
        if prediction is None:
            continue
        given = dict(prediction) if isinstance(prediction, Mapping) else {"response": prediction}
        if not isinstance(given.get("response", ""), str):
            raise OfficialError("AttributeError", f"{given['response']!r:.40} has no attribute 'lower'")
        sample = given | {
            "task": row.groups.get("task", "unknown"), "question": row.question, "options": row.options,
            "ans": str(row.answer), "span": row.windows,
        }  # fmt: skip
        samples.append(sample)
        judged = videomind_script.judge(sample, mode)
        values[row.id] = float(judged.right or False) if judged.answered else 0.0
    found = videomind_script.tables(samples, mode)
    windows, letters = (found[title][videomind_script.ALL] for title in ("Grounding (IoU)", "QA"))
    figures: dict[str, Any] = {name: value for name, value in windows.items() if name != "#Samples"}
    figures["Failed to ground"] = figures.pop("Failed")
    figures |= {name: letters[name] for name in ("long-acc.", "acc.@IoU")}
    scored = int(max(windows["#Samples"], letters["#Samples"]))
    failures = {"missing": len(rows) - scored, "unparsed": int(letters["Failed"])}
    return Table(
        f"official:{script}", figures | {"tables": found}, "percent", scored, len(rows),
        {why: count for why, count in failures.items() if count}, values,
    )  # fmt: skip


def _reply(task: str, prediction: Any) -> Any:
    """Return the reply to one task; a text replies to ``long_acc``."""
    if isinstance(prediction, Mapping):
        return prediction.get(task, prediction.get("response") if task == "long_acc" else None)
    return prediction if task == "long_acc" else None


def _stored(task: str, rows: Sequence[Row], predictions: Predictions) -> dict[str, float]:
    judged = {row.id: judge(task, row, _reply(task, predictions.get(row.id))) for row in rows}
    return {id: value for id, value in judged.items() if value is not None}


def _shares(name: str, part: str, sums: Sequence[float], total: int) -> dict[str, float]:
    """Return a key's accuracy, its total, and its sums: one under ``part``, several by level."""
    figures = {name: sum(sums) / (total * len(sums)) if total else 0.0, f"{name} total": total}
    if len(sums) == 1:
        return figures | {f"{name} {part}": sums[0]}
    return figures | {f"{name} {part}_{level}": one for level, one in zip(LEVELS, sums, strict=True)}


def _union_iou(windows: Any, truth: Sequence[Window]) -> float:
    """Return the IoU of two lists of windows as the script has it; raises what Python raises on what is no window."""
    ones, _ = _merged(windows)
    twos, _ = _merged(truth)
    length_one = sum(end - start for start, end in ones)
    length_two = sum(end - start for start, end in twos)
    common = 0
    for one in ones:
        for two in twos:
            common += max(0, min(one[1], two[1]) - max(one[0], two[0]))
    union = length_one + length_two - common
    return float(common / union) if union > 0 else 0.0


def _merged(windows: Any) -> tuple[list[list[Any]], bool]:
    """Return windows by their start, those that touch made one, and whether any were; anything empty is no window."""
    if not windows:
        return [], False
    if not isinstance(windows, list | tuple):
        raise TypeError(f"{type(windows).__name__} cannot be sorted in place")
    ordered = sorted(windows, key=lambda window: window[0])
    merged: list[Any] = [_own(ordered[0])]
    joined = False
    for window in ordered[1:]:
        if window[0] <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], window[1])
            joined = True
        else:
            merged.append(_own(window))
    return merged, joined


def _own(window: Any) -> Any:
    return list(window) if isinstance(window, list | tuple) else window
