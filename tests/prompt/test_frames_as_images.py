"""Clips as timestamped pictures."""

from __future__ import annotations

import numpy as np
import pytest

from timeloupe.errors import ConfigError
from timeloupe.prompt.frames_as_images import check_time_format, frames_as_images, image_parts
from timeloupe.trajectory import FrameRef, Message, Text


def view(*at_seconds: float, kind: str = "skim") -> FrameRef:
    return FrameRef.model_validate(
        {
            "video": "a.mp4", "view": kind, "start_seconds": 0, "end_seconds": 99, "at_seconds": at_seconds,
            "size_wh": (4, 2),
        }
    )  # fmt: skip


def test_every_frame_is_a_picture_after_its_time() -> None:
    clips = [np.full((2, 2, 4, 3), 7, np.uint8), np.full((1, 2, 4, 3), 9, np.uint8)]
    clips[0][1] = 8
    before = Message(
        role="user", parts=(Text(text="a"), view(1.25, 30), Text(text="b"), view(4, kind="image"))
    )
    messages, pixels = frames_as_images([before], clips)
    (after,) = messages
    assert after.text == "a<1.2 seconds><30.0 seconds>b"
    assert [ref.at_seconds for ref in after.frame_refs] == [(1.25,), (30,), (4,)]
    assert {ref.view for ref in after.frame_refs} == {"image"}
    assert [(clip.shape, int(clip.max())) for clip in pixels] == [
        ((1, 2, 4, 3), level) for level in (7, 8, 9)
    ]
    assert frames_as_images(messages, pixels)[0] == messages


def test_a_time_format_of_ones_own() -> None:
    texts = [part.text for part in image_parts(view(1.5, 2), "t={:g}s ") if isinstance(part, Text)]
    assert texts == ["t=1.5s ", "t=2s "]
    for plain in ("{}", "{0}", "{{{:.0f}}}", "{:08.2f}s", "{:,.1f}", "{:+g}"):
        assert check_time_format(plain) == plain


@pytest.mark.parametrize(
    "wrong",
    [
        "", "seconds", "{} {}", "{name}", "{:d}", "{", "}", "{0.nothing}", "{:.0e}s{1}", "{0.hex}", "{0.real}",
        "{0[0]}", "{0:{0}}", "{!r}", "{:50000000}", "{:.300f}", "{1}", "\udcff{}", "{}" + 200 * "x",
    ],
)  # fmt: skip
def test_what_is_no_time_format(wrong: str) -> None:
    with pytest.raises(ConfigError, match="time format"):
        check_time_format(wrong)


@pytest.mark.parametrize("shapes", [[], [(2, 2, 4, 3)] * 2, [(3, 2, 4, 3)], [(2, 2, 4)]])
def test_clips_that_do_not_fit(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(ConfigError, match="of a chat"):
        frames_as_images([Message(role="user", parts=(view(0, 1),))], [np.zeros(s, np.uint8) for s in shapes])
