"""Episode settings: what is allowed, and that a wrong one says so."""

from __future__ import annotations

from typing import Any

import pytest

from timeloupe.environment.settings import EpisodeSettings, make_settings
from timeloupe.errors import ConfigError
from timeloupe.policy.base import Sampling


def test_later_layers_win() -> None:
    settings = make_settings({"max_turns": 5, "skim_frames": 16}, {"max_turns": 2})
    assert (settings.max_turns, settings.skim_frames, settings.crop_max_frames) == (2, 16, 64)


def test_a_single_pass_has_one_turn() -> None:
    assert EpisodeSettings(max_turns=5).num_turns == 5
    assert EpisodeSettings(max_turns=5, tools=False).num_turns == 1
    assert EpisodeSettings(max_turns=5, question_only=True).num_turns == 1
    assert not EpisodeSettings(question_only=True).offers_tool


def test_sampling() -> None:
    settings = EpisodeSettings(temperature=1.0, top_p=0.9, top_k=50, max_new_tokens=7)
    assert settings.sampling(("</answer>",)) == Sampling(1.0, 0.9, 50, 7, ("</answer>",))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"max_turn": 3}, "unknown episode setting, got 'max_turn', allowed: max_turns"),
        ({"max_turns": 0}, "max_turns: .*greater than or equal to 1.*got 0"),
        ({"skim_fps": float("nan")}, "skim_fps"),
        (
            {"crop_min_frames": 10, "crop_max_frames": 8},
            "crop_min_frames must be <= crop_max_frames, got 10 and 8",
        ),
        ({"skim_start_seconds": 9, "skim_end_seconds": 9}, "skim_start_seconds must be < skim_end_seconds"),
        ({"skim_pixels": 900}, "must be >= 3136"),
        ({"size_multiple": 112, "crop_pixels": 12_000}, "must be >= 12544"),
        ({"top_p": 0.0}, "top_p"),
        ({"frame_size_wh": (28, 0)}, "frame_size_wh.1"),
    ],
)
def test_a_wrong_setting_says_what_is_allowed(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make_settings(wrong)


def test_pixel_bounds_do_not_bind_a_fixed_size() -> None:
    assert make_settings({"frame_size_wh": (28, 28), "skim_pixels": 784}).frame_size_wh == (28, 28)
