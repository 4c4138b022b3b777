"""Which of our functions answer for the vectors of Open-o3 Video's rewards and test-time scaling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.golden.replay import Adapter
from timeloupe.eval import voting
from timeloupe.eval.scripts.errors import OfficialError
from timeloupe.reward import openo3_release as release
from timeloupe.reward.openo3_parse import release_claims
from timeloupe.reward.openo3_terms import Gate, sigma_at

REPOSITORY = "marinero4972/Open-o3-Video"

Inputs = dict[str, Any]


def _official(adapter: Adapter) -> Adapter:
    """What our function raises because the truth is wrong, the official one raises as well."""

    def run(inputs: Inputs) -> Any:
        try:
            return adapter(inputs)
        except (ArithmeticError, AttributeError, LookupError, SyntaxError, TypeError, ValueError) as error:
            raise OfficialError(type(error).__name__, str(error)) from error

    return run


def _each(score: Callable[[str, Inputs], float]) -> Adapter:
    """One value per completion; they share the rest of the inputs."""
    return _official(lambda inputs: [score(reply, inputs) for reply in inputs["completions"]])


def _spatial(reply: str, inputs: Inputs, gate: Gate) -> float:
    if inputs["task"] == release.VISUAL:
        return release.thought_visual(
            reply, inputs["task"], inputs["answer"], inputs["image_size"], inputs["image_size_refine"]
        )
    return release.thought_spatial(
        reply, inputs["task"], inputs.get("key_frames", ()), inputs.get("key_items", {}),
        inputs.get("image_size", ()), gate,
    )  # fmt: skip


def _claims(inputs: Inputs) -> list[Inputs]:
    return [
        {"id": at, "object_name": claim.label, "timestamp": claim.at_seconds, "bboxes": list(claim.boxes)}
        for at, claim in enumerate(release_claims(inputs["think_content"]))
    ]


def _evidence(inputs: Inputs) -> list[Inputs]:
    return [
        {"obj": found.label, "box_xyxy": list(found.box), "t_sec": found.at_seconds}
        for found in voting.read_evidence(inputs["text"])
    ]


def _vote(inputs: Inputs) -> Inputs:
    answers = [None if answer == "NA" else answer for answer in inputs["pred_list"]]
    vote = voting.vote(answers, inputs["score_list"], when_empty="A")
    return {"choice_score": dict(vote.scores), "answer": vote.answer}


_FUNCTIONS: dict[str, Adapter] = {
    "ans_acc": _each(lambda reply, row: release.answer_accuracy(reply, row["task"], str(row["answer"]))),
    "ans_tiou": _each(lambda reply, row: release.answer_tiou(reply, row["task"], str(row["answer"]))),
    "ans_viou": _each(
        lambda reply, row: release.answer_viou(
            reply,
            row["task"],
            str(row["answer"]),
            row.get("image_size", ()),
            row.get("image_size_refine", ()),
        )
    ),
    "thk_temporal_segment": _each(
        lambda reply, row: release.thought_segment(reply, row["task"], row.get("answer", ""))
    ),
    "thk_temporal_point": _each(
        lambda reply, row: release.thought_point(
            reply, row["task"], row.get("key_frames", ()), sigma_at(row["step_percent"])
        )
    ),
    "thk_spatial": _each(lambda reply, row: _spatial(reply, row, release.RELEASE_GATE)),
    "format": _each(lambda reply, row: release.format(reply, row["task"])),
    "parse_claims": _official(_claims),
    "calculate_iou": _official(lambda row: release.release_iou(row["boxA"], row["boxB"])),
    "convert_coord_format": _official(lambda row: release.in_pixels(row["bbox"], row["image_size"])),
    "convert_coord_format_gqa": _official(
        lambda row: release.scaled(row["bbox"], row["image_size"], row["image_size_refine"])
    ),
    "tts_parse_box": _official(lambda row: voting.read_box(row["box_str"])),
    "tts_parse_patterns": _official(_evidence),
    "tts_frame_index": _official(
        lambda row: voting.frame_index(row["num_frames"], row["fps"], row["t_sec"], wraps=True)
    ),
    "tts_relevance_mapping": _official(lambda row: voting.relevance_weight(row["score"])),
    "tts_vote": _official(_vote),
}
ADAPTERS: dict[tuple[str, str], Adapter] = {
    (REPOSITORY, name): adapter for name, adapter in _FUNCTIONS.items()
}

_GATES = {"abs_gate_lt_1.0": Gate("absolute", 1.0, inclusive=False), "abs_gate_le_3.0_paper": Gate()}


def _other_gates(inputs: Inputs) -> Inputs:
    return {
        name: [_spatial(reply, inputs, gate) for reply in inputs["completions"]]
        for name, gate in _GATES.items()
    }


ALTERNATIVES: dict[str, Adapter] = {"thk_spatial": _other_gates}
