"""The embedded model: small, safe to load, and able to play the loop it was trained for."""

from pathlib import Path

import pytest

from timeloupe.environment.rollout import play
from timeloupe.environment.settings import make_settings
from timeloupe.eval.compare import outcome
from timeloupe.policy.small import SMALL_CHECKPOINT, load_small_policy, unknown_words
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.trajectory import StopReason
from timeloupe.world.encode import make_videos
from timeloupe.world.script import EVALUATION_SEEDS, ScriptSettings


def test_the_package_data_is_small_and_described() -> None:
    assert sum(path.stat().st_size for path in SMALL_CHECKPOINT.iterdir()) < 20e6
    card = (SMALL_CHECKPOINT / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "cannot do" in card and "Extra supervision" in card
    assert not any(path.suffix in (".bin", ".pt", ".pkl") for path in SMALL_CHECKPOINT.iterdir())


def test_it_finds_moments_that_a_single_pass_misses(tmp_path: Path) -> None:
    policy, episode, protocol = load_small_policy()
    settings = make_settings(episode)
    videos = make_videos(
        tmp_path, seed=EVALUATION_SEEDS[77], num_videos=6, settings=ScriptSettings(180, 420), per_task=2
    )
    examples = [e.model_copy(update={"video": str(v.path)}) for v in videos for e in v.examples]
    agentic = play(examples, policy, PROTOCOLS[protocol], settings, seed=0)
    single = play(examples, policy, PROTOCOLS[protocol], settings.model_copy(update={"tools": False}), seed=0)
    again = play(examples[:5], policy, PROTOCOLS[protocol], settings, seed=0)
    for one, other in zip(agentic, again, strict=False):
        assert [turn.generation.token_ids for turn in one.turns] == [
            turn.generation.token_ids for turn in other.turns
        ]
    assert sum(trajectory.stop is StopReason.ANSWERED for trajectory in agentic) >= 20
    looked, glanced = [outcome(one) for one in agentic], [outcome(one) for one in single]
    miou = [sum(one.tiou for one in group if one.tiou is not None) / 12 for group in (looked, glanced)]
    right = [sum(one.right for one in group if one.right is not None) / 12 for group in (looked, glanced)]
    assert miou[0] > miou[1] + 0.15
    assert right[0] > right[1] + 0.15


@pytest.mark.parametrize(
    ("text", "unknown"),
    [
        ("When is the triangle visible in the red scene?", []),
        ("Which digit does the ring carry in the teal scene? 3 7", []),
        ("What colour is the sky?", ["colour", "sky"]),
    ],
)
def test_it_says_which_words_it_does_not_know(text: str, unknown: list[str]) -> None:
    policy, _, _ = load_small_policy()
    assert unknown_words(policy, text) == unknown
