"""What the flags of a served model make of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from timeloupe.cli.policies import POLICIES, PolicyFlags, openai_options
from timeloupe.errors import ConfigError
from timeloupe.policy.small import SMALL_CHECKPOINT

URL = "http://127.0.0.1:9/v1"


def test_a_served_checkpoint_is_told_what_it_must_not_sample_unless_that_is_left_off() -> None:
    served = POLICIES["openai"](PolicyFlags(base_url=URL, settings_from="small")).policy
    assert served.settings["never_sample"] == "2812-2813,2815-2825"  # type: ignore[attr-defined]
    for flags in (
        PolicyFlags(base_url=URL),
        PolicyFlags(base_url=URL, settings_from="small", no_logit_bias=True),
    ):
        assert "never_sample" not in POLICIES["openai"](flags).policy.settings  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="--no-logit-bias goes with --settings-from"):
        openai_options(PolicyFlags(base_url=URL, no_logit_bias=True))


def test_a_checkpoint_that_does_not_say_its_tokens_bans_none_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(SMALL_CHECKPOINT / "config.json", tmp_path)
    options, episode, _ = openai_options(PolicyFlags(base_url=URL, settings_from=str(tmp_path)))
    assert options["never_sample"] == () and episode["size_multiple"] == 32
    assert "no tokenizer.json: the server is not told" in capsys.readouterr().err
