"""Which of our functions answer for the vectors of TaRO's rewards and of its temporal sensitivity."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np

from tests.golden.replay import Adapter
from timeloupe.errors import ConfigError
from timeloupe.eval.scripts.errors import OfficialError
from timeloupe.reward import taro, taro_sensitivity

REPOSITORY = "oceanflowlab/TaRO"
RELEASE_GROUP = 8
RELEASE_RADIUS = 1.0


@contextmanager
def _raises_alike() -> Iterator[None]:
    """What the release lets escape escapes ours too, as the exception of the same name."""
    try:
        yield
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise OfficialError(type(error).__name__) from error


def _parse(inputs: dict[str, Any]) -> Any:
    return taro.read_window(inputs["output_string"])


def _format(inputs: dict[str, Any]) -> float:
    return taro.score_format(inputs["solution_str"], think=not inputs.get("nothink", False))


def _on_train(extra_info: dict[str, Any]) -> bool:
    return extra_info.get("split", "train") == "train"


def _iou(inputs: dict[str, Any]) -> Any:
    extra = inputs["extra_info"]
    with _raises_alike():
        window = taro.read_window(inputs["solution_str"])
        return taro.score_tiou(
            window,
            inputs["ground_truth"],
            extra.get("duration"),
            boundary_factors=_on_train(extra),
            guard=False,
        )


def _temporal(inputs: dict[str, Any]) -> float:
    with _raises_alike():
        return taro.score_sensitivity(
            inputs["diff_log_prob"], inputs["diff_log_prob_thresh"],
            bonus=inputs["temp_alpha"], margin=inputs["temp_margin"],
        )  # fmt: skip


def _composite(inputs: dict[str, Any]) -> dict[str, float]:
    extra, constants = inputs["extra_info"], inputs["reward_kwargs"]
    with _raises_alike():
        measured = {}
        if "diff_log_prob" in extra:
            measured = {
                "drop": extra["diff_log_prob"], "threshold": extra["diff_log_prob_thresh"],
                "iou_gate": constants["temp_iou_thresh"], "bonus": constants["temp_alpha"],
                "margin": constants["temp_margin"],
            }  # fmt: skip
        score = taro.score_reply(
            inputs["solution_str"], inputs["ground_truth"], extra.get("duration"),
            boundary_factors=_on_train(extra), think=not constants.get("nothink", False), guard=False, **measured,
        )  # fmt: skip
    return asdict(score)


def _windows(inputs: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    radius = inputs["time_radius"]
    with _raises_alike():
        return taro_sensitivity.boundary_windows(
            inputs["frames_indices"], inputs["fps"], inputs["gt_start"], inputs["gt_end"],
            RELEASE_RADIUS if radius is None else radius,
        )  # fmt: skip


PERMUTATIONS: dict[str, Callable[[int], Sequence[int]]] = {
    "identity": lambda size: range(size),
    "reverse": lambda size: range(size)[::-1],
    "roll": lambda size: [*range(1, size), 0],
}


def _shuffle(inputs: dict[str, Any]) -> dict[str, Any]:
    windows = _windows(inputs)
    sizes: list[int] = []

    def permute(size: int) -> Sequence[int]:
        sizes.append(size)
        return PERMUTATIONS[inputs["permutation"]](size)

    order = taro_sensitivity.shuffled_order(len(inputs["frames_indices"]), windows, permute)
    start, end = (window.tolist() for window in windows)
    return {
        "start_window": start, "end_window": end, "order_after_shuffle": order.tolist(), "perm_sizes": sizes
    }  # fmt: skip


def _torch_permutations(seed: int) -> Callable[[int], list[int]]:
    """Return what ``torch.randperm`` on the CPU draws after ``torch.manual_seed(seed)``, call after call.

    Its generator is the Mersenne Twister with Knuth's seeding of one number; it draws one word per place, from the
    left, and swaps with the place that many further right, modulo what is left.
    """
    words = np.zeros(624, dtype=np.uint64)
    words[0] = seed & 0xFFFFFFFF
    for at in range(1, 624):
        before = int(words[at - 1])
        words[at] = (1812433253 * (before ^ (before >> 30)) + at) & 0xFFFFFFFF
    twister = np.random.MT19937()
    twister.state = {"bit_generator": "MT19937", "state": {"key": words.astype(np.uint32), "pos": 624}}

    def permute(size: int) -> list[int]:
        order = list(range(size))
        for at in range(size - 1):
            other = at + int(twister.random_raw()) % (size - at)
            order[at], order[other] = order[other], order[at]
        return order

    return permute


def _seeded_shuffle(inputs: dict[str, Any]) -> dict[str, Any]:
    permute = _torch_permutations(inputs["torch_manual_seed"])
    order = taro_sensitivity.shuffled_order(len(inputs["frames_indices"]), _windows(inputs), permute)
    return {"order_after_shuffle": order.tolist()}


def _drop(inputs: dict[str, Any]) -> dict[str, Any]:
    drops = taro_sensitivity.log_prob_drops(
        np.array(inputs["log_probs"]),
        np.array(inputs["shuffled_log_probs"]),
        np.array(inputs["response_mask"]),
    )
    threshold = inputs["temp_diff_thresh"]
    if threshold == "mean":
        try:
            thresholds = taro_sensitivity.group_means(drops, RELEASE_GROUP)
        except ConfigError as error:
            raise OfficialError("RuntimeError") from error
    else:
        thresholds = np.full(len(drops), float(threshold))
    return {"diff_log_prob": drops.tolist(), "diff_log_prob_thresh": thresholds.tolist()}


def _shared(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"diff_log_prob": taro_sensitivity.shared_by_group(inputs["diff_log_prob"], inputs["n"]).tolist()}


def _captions(inputs: dict[str, Any]) -> dict[str, Any] | None:
    """Which captions are drawn; a thought's opening sentence is our own."""
    captions = inputs["captions"]
    if taro_sensitivity.construct_thought(captions, inputs["query"], random.Random(0)) is None:
        return None
    randomness = random.Random(inputs["random_seed"])
    return {"selected": list(taro_sensitivity.sample_captions(len(captions), randomness))}


ADAPTERS: dict[tuple[str, str], Adapter] = {
    (REPOSITORY, "parse_timestamp_output"): _parse,
    (REPOSITORY, "format_reward"): _format,
    (REPOSITORY, "iou_reward"): _iou,
    (REPOSITORY, "temporal_reward"): _temporal,
    (REPOSITORY, "compute_vtg_score"): _composite,
    (REPOSITORY, "shuffle_boundary_frames"): _shuffle,
    (REPOSITORY, "shuffle_boundary_frames_seeded"): _seeded_shuffle,
    (REPOSITORY, "temporal_drop"): _drop,
    (REPOSITORY, "temporal_drop_seen_by_reward"): _shared,
    (REPOSITORY, "sample_reasoning"): _captions,
}
