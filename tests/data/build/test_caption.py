"""Captions of a video's windows: what of a reply is read, and that merging loses nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.data.build.by_hand import asks, kit, played
from timeloupe.data.build.record import Caption
from timeloupe.data.build.stages.caption import CaptionStage, caption, merge_captions, read_line, videos
from timeloupe.grounding import merge_spans
from timeloupe.trajectory import Example, Segment
from timeloupe.world.labeller import OracleErrors
from timeloupe.world.labeller_captions import caption_reply
from timeloupe.world.script import generator, make_script

VIDEO = Example(id="a", video="a.mp4", question="What happens, and when?")


def stage(**options: object) -> CaptionStage:
    return CaptionStage.model_validate({"kind": "caption", **options})


def said(start: float, end: float, text: str) -> Caption:
    return Caption(segment=Segment(start_seconds=start, end_seconds=end), text=text)


@pytest.mark.parametrize(
    ("line", "start", "end", "text"),
    [
        ("From 5.3s to 8.1s, the person opens the box.", 5.3, 8.1, "the person opens the box."),
        ("5.3s - 8.1s: He runs", 5.3, 8.1, "He runs"),
        ("[5, 8] he runs", 5, 8, "he runs"),
        ("- **0:05 \u2013 1:08** he runs", 5, 68, "he runs"),
        ("12. From <t>5.3</t>s to <t>8</t>s he runs", 5.3, 8, "he runs"),
        ("0s to 21s red scene", 0, 21, "red scene"),
        ("between 1 and 2 seconds 3 people sit down", 1, 2, "3 people sit down"),
        ("  from 01:00:05.5 until 01:00:07 a dog", 3605.5, 3607, "a dog"),
    ],
)
def test_a_line_is_read_in_many_forms(line: str, start: float, end: float, text: str) -> None:
    assert read_line(line) == said(start, end, text)


@pytest.mark.parametrize(
    "line",
    ["", "He runs.", "5.3s he runs", "1" * 4000 + " to", "From 8s to 5s, he runs", "From 5s to 5s, he runs",
     "5.3s to 8.1s", "2 to 3 men sit", "From 5 min to 6 min, he runs", "5.3s to 8.1s, 17!"],
)  # fmt: skip
def test_what_is_no_caption_is_not_read(line: str) -> None:
    assert read_line(line) is None


def test_windows_cover_the_video_and_what_is_left_out_is_counted() -> None:
    replies = {
        0: "From 1s to 5s, a dog runs.\nFrom 30s to 50s, a cat sits.\nnot a line",
        1: "From 36s to 60s, a cat sits\nFrom 2s to 3s, elsewhere",
        2: "none",
    }
    part = stage(window_seconds=40, overlap_seconds=4)
    outcome, steps = played(
        caption(VIDEO, part, kit("openo3")),
        lambda ask: f"<think>x</think><answer>{replies[ask.round]}</answer>",
        kit("openo3"),
    )
    assert [(one.views[0].ref.start_seconds, one.views[0].ref.end_seconds) for one in asks(steps)] == [
        (0, 40), (36, 76), (72, 100),
    ]  # fmt: skip
    assert "goes from 36.0s to 76.0s of the video" in asks(steps)[1].messages[-1].text
    assert {one.example.id for one in asks(steps)} == {VIDEO.id}
    assert (outcome.kept, outcome.reason) == (True, "captioned")
    assert outcome.captions == (said(1, 5, "a dog runs."), said(30, 60, "a cat sits"))
    assert outcome.figures == {
        "windows": 3, "silent_windows": 1, "read": 3, "dropped": 2, "unreadable": 1, "outside": 1, "clipped": 1,
        "merged": 1, "captions": 2,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "windows"), [(40.0, 1), (39.0, 1), (40.1, 2), (72.5, 2), (76.0, 2), (76.1, 3)]
)
def test_no_window_shows_only_what_the_one_before_has_shown(seconds: float, windows: int) -> None:
    part = stage(window_seconds=40, overlap_seconds=4, max_windows=2)
    tools, reply = kit("openo3"), "<answer>From 0s to 99s, x</answer>"
    outcome, steps = played(caption(VIDEO, part, tools), lambda _: reply, tools, seconds=seconds)
    if windows > 2:
        assert (outcome.kept, outcome.reason, asks(steps)) == (False, "too_long", [])
        return
    assert len(asks(steps)) == windows
    assert outcome.captions == (said(0, seconds, "x"),)


def test_a_reply_without_tags_is_read_and_the_line_that_a_limit_cut_is_not() -> None:
    part = stage(window_seconds=200)
    text = "<think>From 1s to 2s, thought.</think>From 3s to 4s, said.\nFrom 5s to 6s, cu"
    outcome, _ = played(caption(VIDEO, part, kit("openo3")), lambda _: text, kit("openo3"), finish="length")
    assert outcome.captions == (said(3, 4, "said."),)
    assert outcome.figures["unreadable"] == 1
    outcome, _ = played(
        caption(VIDEO, part, kit("openo3")), lambda _: "<answer>I see nothing.</answer>", kit("openo3")
    )
    assert (outcome.kept, outcome.reason) == (False, "no_captions")


def test_one_item_a_video_with_an_id_of_its_own() -> None:
    rows = [
        Example(id=str(at), video=video, question="?")
        for at, video in enumerate(["a/x.mp4", "b/y.mp4", "a/x.mp4"])
    ]
    assert [(one.id, one.video) for one in videos(rows, stage())] == [("x", "a/x.mp4"), ("y", "b/y.mp4")]
    same = [one.model_copy(update={"video": f"{one.id}/x.mp4"}) for one in rows]
    ids = [one.id for one in videos(same, stage())]
    assert len({*ids}) == 3 and ids[1:] == [one.id for one in videos(same[1:], stage())]


def test_windows_must_move_on() -> None:
    with pytest.raises(ValidationError, match="overlap_seconds must be < window_seconds, got 5 and 5"):
        stage(window_seconds=5, overlap_seconds=5)


CAPTIONS = st.lists(
    st.builds(
        lambda start, length, words: said(start, start + length, " ".join(words)),
        st.integers(0, 40), st.integers(1, 12), st.lists(st.sampled_from("abcde"), min_size=1, max_size=5),
    ),
    max_size=12,
)  # fmt: skip


@given(CAPTIONS, st.sampled_from([0.3, 0.5, 0.8, 1.0]))
def test_merging_loses_no_time_and_is_ordered_and_final(captions: list[Caption], same_from: float) -> None:
    merged = merge_captions(captions, same_from)
    assert merge_spans([one.segment for one in merged]) == merge_spans([one.segment for one in captions])
    starts = [one.segment.start_seconds for one in merged]
    assert starts == sorted(starts)
    assert merge_captions(merged, same_from) == merged
    assert {one.text for one in merged} <= {one.text for one in captions}
    # Each caption stands whole within one that stayed.
    for one in captions:
        assert any(
            other.segment.start_seconds <= one.segment.start_seconds
            and one.segment.end_seconds <= other.segment.end_seconds
            for other in merged
        )
    # Without near-duplicates every text keeps its own seconds.
    for text in {one.text for one in captions}:
        before, after = (
            merge_spans([one.segment for one in some if {*one.text.split()} == {*text.split()}])
            for some in (captions, merge_captions(captions, 1.0))
        )
        assert before == after


@given(CAPTIONS)
def test_the_order_of_captions_does_not_matter(captions: list[Caption]) -> None:
    assert merge_captions(captions[::-1], 0.8) == merge_captions(captions, 0.8)


def test_an_oracle_without_errors_says_what_the_frames_show_and_errs_as_told() -> None:
    script = make_script(3, 0)
    window = Segment(start_seconds=0.0, end_seconds=script.duration_seconds)
    times = [second + 0.0 for second in range(int(script.duration_seconds))]

    def lines(**errors: float) -> list[str]:
        random = generator("test", 1)
        text = caption_reply(script, window, times, OracleErrors.model_validate(errors), random)
        return text.partition("<answer>")[2].partition("</answer>")[0].strip().splitlines()

    truth = {text: segment for segment, text in script.captions()}
    found = [read_line(line) for line in lines()]
    assert len(found) == len(script.captions())
    for one in found:
        assert one is not None
        assert abs(one.segment.start_seconds - truth[one.text].start_seconds) < 0.6
        assert abs(one.segment.end_seconds - truth[one.text].end_seconds) < 0.6
    assert lines(missed_caption=1.0) == ["none"]
    invented = [one for line in lines(invented_caption=1.0) if (one := read_line(line)) is not None]
    assert len(invented) == 2 * len(truth) and sum(one.text in truth for one in invented) == len(truth)
    assert lines(boundary_seconds=3.0) != lines()
