"""What a card says of cost: of the run, of an episode, of a question with all its repeats."""

from __future__ import annotations

from typing import Any

import pytest

from timeloupe.eval.card import card_lines, cost
from timeloupe.trajectory import Answer, Example, Generation, StopReason, Trajectory, Turn, Usage


def episode(id: str, repeat: int) -> Trajectory:
    """An episode of 1000 prompt and 100 completion tokens."""
    generation = Generation(text="<answer>A</answer>", usage=Usage(prompt_tokens=1000, completion_tokens=100))
    return Trajectory(
        example=Example(id=id, video="v.mp4", question="?"), policy="p", protocol="small", rollout_index=repeat,
        turns=(Turn(generation=generation, answer=Answer(text="A")),), stop=StopReason.ANSWERED,
    )  # fmt: skip


def spent(repeats: int) -> dict[str, Any]:
    return cost([episode(id, repeat) for id in "ab" for repeat in range(repeats)], 12.0, (2.0, 10.0))


@pytest.mark.parametrize("repeats", [1, 3])
def test_a_question_costs_as_much_as_all_of_its_episodes(repeats: int) -> None:
    found = spent(repeats)
    assert found["dollars_per_episode"] == pytest.approx(0.003)
    assert found["dollars_per_question"] == pytest.approx(0.003 * repeats)
    assert found["seconds_per_question"] == 6.0 == pytest.approx(found["seconds_per_episode"] * repeats)


def test_the_card_in_short_says_of_how_many_episodes_a_price_is() -> None:
    card = {
        "model": {"name": "m"}, "prompt": {"protocol": "small", "sha256": "0" * 64},
        "benchmark": {"asked": 2, "rows": 2, "sha256": "1" * 64},
        "frames": {"frame_size_wh": None, "skim_frames": 4, "crop_max_frames": 4, "skim_pixels": 9, "max_turns": 2,
                   "tools": True},
        "sampling": {"temperature": 0.0, "seed": 0, "repeats": 1}, "cost": spent(1),
    }  # fmt: skip
    assert card_lines(card)[2].endswith("$0.006, $0.003 per question")
    card |= {"sampling": {"temperature": 1.0, "seed": 0, "repeats": 3}, "cost": spent(3)}
    assert card_lines(card)[2].endswith("$0.018, $0.009 per question of 3 episodes")


def test_what_was_not_counted_has_no_price() -> None:
    found = cost(
        [episode("a", 0).model_copy(update={"turns": (Turn(generation=Generation(text="x")),)})], 1.0, (1, 1)
    )
    assert found["prompt_tokens"] is None and found["dollars_per_question"] is None
    assert cost([], 0.0, (1, 1))["dollars_per_question"] == 0.0
