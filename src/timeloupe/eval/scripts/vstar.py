"""V-STaR's eval.py and Open-o3 Video's copy of it, fault for fault, and how Open-o3 Video reads boxes out of answers.

Sources: V-STaR-Bench/V-STaR@1894682b15be, eval.py (Cheng et al. 2025, "V-STaR", section 4.2), and
marinero4972/Open-o3-Video@1eb6ecae0507, eval/test/eval_vstar.py (called ``openo3`` here) and
eval/test/test_vstar_multi_images.py. ``extract_bounding_boxes`` and ``fix_incomplete_json`` are the same in V-STaR's
inference_demo.py. Times are read by ``timeloupe.eval.extractors.times.open_o3``, which is ``refined_timestamps`` and
``extract_timestamps``.

Faults: an item without an answer to "what" leaves all means but not the denominator of the overall accuracy and of the
joint shares (of a group's it does); a perfect mean, or a group without such an answer, ends the script; reversed boxes
and times are used as written; the baseline of the whole frame is 0 with the annotation that was published; boxes are
never scaled from the size of the model's input. ``openo3`` reads times again where a list of them is empty, and takes
boxes that are no dict for none, where V-STaR's script ends.

Deviations:

1. A time written as text is looked at only up to ``MAX_LITERAL_CHARACTERS``; a longer one is no pair.
2. Patterns are written so that a hostile text cannot make them go back; what they find is the same.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from timeloupe.eval.extractors.times import open_o3
from timeloupe.eval.scripts.errors import OfficialError, raising_as_script
from timeloupe.eval.spatial import LEVELS, arithmetic_mean, log_geometric_mean

MAX_LITERAL_CHARACTERS = 10_000
RIGHT_SCORE = 2
UNREAD_SCORE = -1
JOINT_TIOU = 0.3
JOINT_VIOU = 0.1
SHORT_SECONDS = 60
MEDIUM_SECONDS = 180
OVERALL = "Overall Statistics"
JOINTS = ("vqa_temp", "vqa_spat", "temp_spat", "vqa_temp_spat")
CHAINS = ("", "_2")
APS = {"AP1@0.1:0.9": "", "AP2@0.1:0.9": "_2"}

DIGITS = 4

Script = Literal["vstar", "openo3"]
Item = Mapping[str, Any]
Block = dict[str, Any]

_FENCE = re.compile(r"```json\s*+(?<=\n)([\[{])")
_FENCE_ENDS = {"[": re.compile(r"\]\s*+(?<=\n)```"), "{": re.compile(r"\}\s*+(?<=\n)```")}
_CLOSING = {"[": "]", "{": "}"}


@dataclass(frozen=True)
class Evaluation:
    """What the script says of a file.

    Attributes:
        blocks: What it prints, in order: ``Overall Statistics``, each ``Video Length: ...``, each ``Domain: ...``, to
            figures under the script's names, unrounded; ``mean_aps`` are lists.
        joint_items: By block, name of a joint figure -> numbers of the items that reach it.
        items: What it notes of each item; empty for one without an answer to "what".
        error: What it ends with, after the blocks; ``None`` if it ends well.
    """

    blocks: dict[str, Block]
    joint_items: dict[str, dict[str, list[int]]]
    items: list[Block]
    error: OfficialError | None = None


def temporal_iou(truth: Sequence[float], answer: Any) -> float:
    """Return the overlap over the hull of two (start, end); 0 if ``answer`` is no pair, nor the text of one.

    Raises:
        OfficialError: The text or its numbers are such that the script ends.
    """
    if not answer:
        return 0.0
    with raising_as_script():
        if isinstance(answer, str):
            answer = _literal(answer)
        pair = isinstance(answer, list | tuple) and len(answer) == 2
        if not pair or not all(isinstance(one, int | float) for one in answer):
            return 0.0
        start, end = answer
        common = max(0, min(truth[1], end) - max(truth[0], start))
        hull = max(truth[1], end) - min(truth[0], start)
        return common / hull if hull > 0 else 0.0


def bbox_iou(truth: Mapping[str, float], answer: Any) -> float:
    """Return the best IoU of the answered boxes with the true one, signed areas and all; 0 where anything is odd.

    Args:
        truth: ``xmin``, ``ymin``, ``xmax``, ``ymax``.
        answer: One box of four numbers, or a list of boxes.
    """
    try:
        if not answer:
            return 0.0
        if isinstance(answer[0], int | float) and len(answer) == 4:
            answer = [answer]
        return max([_box_iou(truth, box) for box in answer])
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return 0.0


def spatial_metrics(
    boxes: Sequence[Mapping[str, Any]], answer: Any, *, guarded: bool = False
) -> tuple[list[float], float]:
    """Return AP at each of ``LEVELS`` and the mean IoU, over the labelled frames.

    Args:
        boxes: ``timestamp``, ``xmin``, ``ymin``, ``xmax``, ``ymax`` each.
        answer: Boxes by the text of the timestamp.
        guarded: Whether what is no dict is taken for no answer, as ``openo3`` does.

    Raises:
        OfficialError: Not guarded, and ``answer`` is a text or list that holds a timestamp, or no container at all.
    """
    if not answer:
        return [0.0] * len(LEVELS), 0.0
    ious: list[float] = []
    with raising_as_script():
        for box in boxes:
            frame = str(box["timestamp"])
            there = frame in answer if isinstance(answer, dict) or not guarded else False
            ious.append(bbox_iou({side: box[side] for side in _SIDES}, answer[frame]) if there else 0.0)
    return _frame_figures(ious)


def spatial_random(
    boxes: Iterable[Mapping[str, Any]], width: float, height: float
) -> tuple[list[float], float]:
    """Return AP and mean IoU of the whole frame as the answer, for boxes as ``{"<timestamp>_<frame>": box}``.

    With boxes as they were published every field of a box is taken for one, and all is 0.
    """
    return _frame_figures([bbox_iou(box, [0, 0, width, height]) for entry in boxes for box in entry.values()])


def evaluate(items: Sequence[Item], judge_scores: Sequence[int | None], script: Script) -> Evaluation:
    """Return what the script prints and notes.

    Args:
        items: The annotation's records with ``answer_vqa``, ``answer_temporal``, ``answer_temporal_2``,
            ``answer_spatial``, ``answer_spatial_2``, each of which may be missing; ``openo3`` also takes
            ``answer_temporal_pre`` and ``answer_temporal_pre_2``.
        judge_scores: 0 to 3 per item, -1 where the judge gave no number; not looked at where ``answer_vqa`` is empty.
        script: Whose.
    """
    overall = _Stats()
    lengths: dict[str, _Stats] = {}
    domains: dict[str, _Stats] = {}
    noted: list[Block] = []
    try:
        for number, item in enumerate(items):
            with raising_as_script():
                length = length_of(item["frame_count"], item["fps"])
                _ = item["width"], item["height"]
            groups = (
                overall,
                domains.setdefault(item.get("domain", "unknown"), _Stats()),
                lengths.setdefault(length, _Stats()),
            )
            graded = _graded(item, judge_scores[number], script) if item.get("answer_vqa") else {}
            noted.append(graded)
            if graded:
                for stats in groups:
                    stats.add(number, graded)
    except OfficialError as error:
        return Evaluation({}, {}, noted, error)
    labelled = {OVERALL: overall}
    labelled |= {f"Video Length: {name}": stats for name, stats in lengths.items()}
    labelled |= {f"Domain: {name}": stats for name, stats in domains.items()}
    blocks: dict[str, Block] = {}
    joints: dict[str, dict[str, list[int]]] = {}
    for label, stats in labelled.items():
        try:
            blocks[label] = stats.block(len(items) if label == OVERALL else len(stats.items))
        except OfficialError as error:
            return Evaluation(blocks, joints, noted, error)
        joints[label] = stats.joints
    return Evaluation(blocks, joints, noted)


def printed(block: Mapping[str, Any], *, judged: bool) -> dict[str, float | None]:
    """Return a block under the names that the script prints; ``None`` for what a missing judge would have to say."""
    named: dict[str, Any] = {
        "Avg All Score": block["avg_all_score"], "Avg Valid Score": block["avg_valid_score"],
        "Accuracy": block["acc_vqa"],
    }  # fmt: skip
    graded = set(named)
    for chain, end in zip(CHAINS, ("", " (chain 2)"), strict=True):
        for level in ("0.3", "0.5", "0.7"):
            named[f"R1@IoU={level}{end}"] = block[f"r1_iou{level[2]}0{chain}"]
        named[f"Mean IoU{end}"] = block[f"mean_temporal_iou{chain}"]
        named |= {
            f"mAP@{level}{end}": ap for level, ap in zip(LEVELS, block[f"mean_aps{chain}"], strict=True)
        }
        named[f"Mean mIoU{end}"] = block[f"mean_miou{chain}"]
    for name in ("AM", "LGM"):
        means = {f"{name}1": block[name], f"{name}2": block[f"{name}2"], f"m{name}": block[f"m{name}"]}
        named |= means
        graded |= set(means)
    for joint, name in zip(
        JOINTS, ("VQA & Temp", "VQA & Spat", "Temp & Spat", "VQA & Temp & Spat"), strict=True
    ):
        for chain, end in zip(CHAINS, ("", " (chain 2)"), strict=True):
            named[f"{name}{end}"] = block[f"{joint}{chain}"]
            graded |= {f"{name}{end}"} if "VQA" in name else set()
    return {name: float(f"{value:.{DIGITS}f}") if judged or name not in graded else None
            for name, value in named.items()}  # fmt: skip


def led(names: Iterable[str], leading: Sequence[str]) -> list[str]:
    """Return the names, those that matter most in front: a line of a terminal holds no more."""
    return [*leading, *(name for name in names if name not in leading)]


def length_of(frame_count: float, fps: float) -> str:
    """Return ``Short``, ``Medium`` or ``Long``."""
    seconds = round(frame_count / fps, 2)
    return "Short" if seconds < SHORT_SECONDS else "Medium" if seconds < MEDIUM_SECONDS else "Long"


def fix_incomplete_json(text: str) -> str:
    """Return ``text`` with as many brackets of each kind closed as are opened; what is missing is put at an end."""
    for opening, closing in _CLOSING.items():
        missing = text.count(opening) - text.count(closing)
        text = text + closing * missing if missing > 0 else opening * -missing + text
    return text


def extract_bounding_boxes(answer: str, data: Mapping[str, Any]) -> Any:
    """Return the boxes that an answer writes as JSON: a dict by frame, else a list, else ``None``.

    Read is the inside of the first ``<answer>``, there the first block of fenced JSON, else all from the first
    bracket to the last of its kind; single quotes are taken for double ones. A list of dicts becomes one dict, a list
    of (frame, box) pairs too; a list that is neither comes back as it is. Coordinates are not scaled.

    Args:
        answer: The model's text.
        data: The item; its ``width`` and ``height`` must be there, and are not used.

    Raises:
        OfficialError: ``KeyError``, without width and height.
    """
    _, opening, rest = answer.partition("<answer>")
    inside, closing, _ = rest.partition("</answer>")
    text = inside.strip() if opening and closing else answer
    with raising_as_script():
        _ = data["width"], data["height"]
    written = _json_part(text)
    if written is None:
        return None
    written = written.strip().replace("'", '"')
    try:
        boxes = json.loads(written)
        if isinstance(boxes, dict):
            return boxes
        if all(isinstance(one, dict) for one in boxes):
            return {frame: box for one in boxes for frame, box in one.items()}
        return {str(one[0]): one[1] for one in boxes}
    except (LookupError, RecursionError, TypeError, ValueError):
        try:
            return json.loads(fix_incomplete_json(written))
        except (RecursionError, ValueError):
            return None


_SIDES = ("xmin", "ymin", "xmax", "ymax")


@dataclass
class _Stats:
    """The items of one block."""

    items: list[Block] = field(default_factory=list)
    joints: dict[str, list[int]] = field(
        default_factory=lambda: {f"{name}{chain}": [] for name in JOINTS for chain in CHAINS}
    )

    def add(self, number: int, graded: Block) -> None:
        self.items.append(graded)
        right = graded["VQA_score"] >= RIGHT_SCORE
        for chain in CHAINS:
            when = graded[f"temporal_IoU{chain}"] >= JOINT_TIOU
            where = graded[f"spatial_mIoU{chain}"] >= JOINT_VIOU
            reached = (right and when, right and where, when and where, right and when and where)
            for name, yes in zip(JOINTS, reached, strict=True):
                if yes:
                    self.joints[f"{name}{chain}"].append(number)

    def block(self, total: int) -> Block:
        """Return the figures of the block.

        Raises:
            OfficialError: There is no item, or a mean is perfect.
        """
        scores = [item["VQA_score"] for item in self.items]
        valid = [score for score in scores if score != UNREAD_SCORE]
        found: Block = {
            "avg_all_score": _mean([0 if score == UNREAD_SCORE else score for score in scores]),
            "avg_valid_score": _mean(valid) if valid else 0.0,
        }
        with raising_as_script():
            found["acc_vqa"] = sum(score >= RIGHT_SCORE for score in scores) / total
        for aps, chain in APS.items():
            ious = [item[f"temporal_IoU{chain}"] for item in self.items]
            for level in (0.3, 0.5, 0.7):
                found[f"r1_iou{level * 100:.0f}{chain}"] = _mean([iou >= level for iou in ious])
            found[f"mean_temporal_iou{chain}"] = _mean(ious)
            found[f"mean_aps{chain}"] = [
                _mean([item[aps][at] for item in self.items]) for at in range(len(LEVELS))
            ]
            found[f"mean_miou{chain}"] = _mean([item[f"spatial_mIoU{chain}"] for item in self.items])
        found |= {name: len(numbers) / total for name, numbers in self.joints.items()}
        for chain in CHAINS:
            shares = (found["acc_vqa"], found[f"mean_temporal_iou{chain}"], found[f"mean_miou{chain}"])
            found[f"AM{'2' if chain else ''}"] = arithmetic_mean(*shares)
            with raising_as_script():
                found[f"LGM{'2' if chain else ''}"] = log_geometric_mean(*shares, least_rest=0)
        found["mAM"] = (found["AM"] + found["AM2"]) / 2
        found["mLGM"] = (found["LGM"] + found["LGM2"]) / 2
        return found


def _graded(item: Item, score: int | None, script: Script) -> Block:
    if score is None:
        raise ValueError("an item with an answer needs the judge's score")
    found: Block = {"VQA_score": score}
    guarded = script == "openo3"
    with raising_as_script():
        for chain in CHAINS:
            times = _read_again(item, chain) if guarded else item.get(f"answer_temporal{chain}")
            found[f"temporal_IoU{chain}"] = temporal_iou(item["timestamps"], times)
        for aps, chain in APS.items():
            boxes = item.get(f"answer_spatial{chain}")
            found[aps], found[f"spatial_mIoU{chain}"] = spatial_metrics(
                item["bboxes"], boxes, guarded=guarded
            )
    return found


def _read_again(item: Item, chain: str) -> Any:
    """Return the times of an item; where they are an empty list, those that can be read from the model's text."""
    with raising_as_script():
        times = item[f"answer_temporal{chain}"]
        if times != []:
            return times
        text = item[f"answer_temporal_pre{chain}"]
        if not isinstance(text, str):
            raise TypeError("expected string or bytes-like object")
    return open_o3(text)


def _literal(text: str) -> Any:
    if len(text) > MAX_LITERAL_CHARACTERS:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None


def _box_iou(truth: Mapping[str, float], box: Any) -> float:
    if not isinstance(box, list | tuple) or len(box) != 4:
        return 0.0
    xmin, ymin, xmax, ymax = (truth[side] for side in _SIDES)
    width = max(0, min(xmax, box[2]) - max(xmin, box[0]))
    height = max(0, min(ymax, box[3]) - max(ymin, box[1]))
    area, other = (xmax - xmin) * (ymax - ymin), (box[2] - box[0]) * (box[3] - box[1])
    union = area + other - width * height
    return width * height / union if union > 0 else 0.0


def _frame_figures(ious: Sequence[float]) -> tuple[list[float], float]:
    if not ious:
        return [0.0] * len(LEVELS), 0.0
    return [_mean([iou >= level for iou in ious]) for level in LEVELS], _mean(ious)


def _mean(values: Sequence[float]) -> float:
    """Return the mean as numpy adds it up; NaN without values."""
    with np.errstate(all="ignore"):
        return float(np.mean(values)) if values else float("nan")


def _json_part(text: str) -> str | None:
    """Return the fenced JSON of a text, else from its first bracket to the last that closes one of its kind."""
    ends = dict(_FENCE_ENDS)
    for fence in _FENCE.finditer(text):
        end = ends[fence[1]].search(text, fence.end()) if fence[1] in ends else None
        if end is not None:
            return text[fence.start(1) : end.start() + 1]
        ends.pop(fence[1], None)  # no later fence of this kind has an end either
    starts = [
        (start, text.rfind(closing))
        for opening, closing in _CLOSING.items()
        if 0 <= (start := text.find(opening)) < text.rfind(closing)
    ]
    return text[min(starts)[0] : min(starts)[1] + 1] if starts else None
