"""Messages: golden transcripts of every preset, and the small model's exact text.

``python tests/prompt/test_build.py`` writes the golden transcripts anew; read the difference before committing it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from timeloupe.errors import ConfigError
from timeloupe.prompt.build import (
    first_messages,
    observation_message,
    question_block,
    write_call,
    write_seconds,
    write_segments,
)
from timeloupe.prompt.parse import parse_reply
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.trajectory import Example, FrameRef, Message, Segment, Text

GOLDEN = Path(__file__).parent / "golden"

DIGIT = Example(
    id="w1", video="w.mp4", question="Which digit does the star carry in the red scene?",
    options=("3", "7"), answer="B", task="multiple_choice",
)  # fmt: skip
TASKS = {
    "multiple_choice": DIGIT,
    "grounding": Example(id="g", video="w.mp4", question="When does she open the door?", task="grounding"),
    "multi_segment": Example(
        id="m", video="w.mp4", question="When does he throw a dart?", task="multi_segment"
    ),
    "what_when_where": Example(id="v", video="w.mp4", question="What does she wear?", task="what_when_where"),
    "open": Example(id="o", video="w.mp4", question="What does she wear?"),
}


def view(kind: str, start: float, end: float) -> FrameRef:
    """A view of two frames."""
    return FrameRef.model_validate(
        {
            "video": "w.mp4", "view": kind, "start_seconds": start, "end_seconds": end,
            "at_seconds": ((3 * start + end) / 4, (start + 3 * end) / 4), "size_wh": (28, 28),
        }
    )  # fmt: skip


SKIM = view("skim", 0, 120)
CROPS = (view("crop", 30, 40), view("crop", 60.5, 70))


def shown(messages: Sequence[Message]) -> str:
    """Messages as text, with the frames as a line of their own."""
    lines: list[str] = []
    for message in messages:
        lines.append(f"=== {message.role}")
        for part in message.parts:
            if isinstance(part, Text):
                lines.append(repr(part.text))
            else:
                lines.append(f"[{part.view} {part.start_seconds:g} to {part.end_seconds:g} s]")
    return "\n".join(lines)


def transcript(name: str) -> str:
    """Everything that one preset says."""
    protocol = PROTOCOLS[name]
    blocks = [
        ("with the tool", first_messages(DIGIT, SKIM, protocol, tools=True)),
        ("without the tool", first_messages(DIGIT, SKIM, protocol, tools=False)),
        ("question only", first_messages(DIGIT, None, protocol, tools=False)),
        ("two crops", [observation_message(CROPS, [], protocol, DIGIT)]),
        ("a crop and an error", [observation_message(CROPS[:1], ["[9, 3] is empty"], protocol, DIGIT)]),
        ("errors", [observation_message([], ["[9, 3] is empty", "[500, 600] is too late"], protocol, DIGIT)]),
    ]
    for task, example in TASKS.items():
        blocks.append((f"task {task}", first_messages(example, SKIM, protocol, tools=True)[-1:]))
    segments = (Segment(start_seconds=68, end_seconds=105), Segment(start_seconds=200.25, end_seconds=230.5))
    answers = [write_segments(some, protocol) for some in (segments[:1], segments)]
    written = "\n".join([write_call(segments, protocol), *answers])
    text = "\n\n".join(f"##### {title}\n{shown(messages)}" for title, messages in blocks)
    return f"{text}\n\n##### written\n{written}\n"


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_preset_says_what_it_said(name: str) -> None:
    assert transcript(name) == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


def test_there_is_one_golden_transcript_per_preset() -> None:
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(PROTOCOLS)
    assert all(protocol.name == name for name, protocol in PROTOCOLS.items())


def test_the_small_models_exact_text() -> None:
    """The embedded checkpoint was trained on this text: it must not change."""
    small = PROTOCOLS["small"]
    question = "Which digit does the star carry in the red scene?\nA. 3\nB. 7"
    system, user = first_messages(DIGIT, SKIM, small, tools=True)
    assert system == Message(role="system", parts=(Text(text="Look closer, then answer."),))
    assert user.parts == (Text(text=f"{question}\n"), SKIM, Text(text=f"\n{question}"))
    assert first_messages(DIGIT, SKIM, small, tools=False)[0].text == "Answer now."
    assert observation_message(CROPS, [], small, DIGIT).parts == (*CROPS, Text(text=f"\n{question}"))
    assert observation_message([], ["too late"], small, DIGIT).parts == (Text(text=f"too late\n{question}"),)
    grounding = first_messages(TASKS["grounding"], SKIM, small, tools=True)[1]
    stem = "When does she open the door?"
    assert grounding.parts == (Text(text=f"{stem}\n"), SKIM, Text(text=f"\n{stem}"))
    assert first_messages(DIGIT, None, small, tools=False)[1].parts == (Text(text=question),)
    assert write_call([Segment(start_seconds=68, end_seconds=97)], small) == (
        '<tool_call>{"name":"get_video_clip_frame","arguments":[{"start_time":68,"end_time":97}]}</tool_call>'
    )


def test_every_frame_reference_stays_in_order() -> None:
    for protocol in PROTOCOLS.values():
        for tools in (True, False):
            assert [
                ref for one in first_messages(DIGIT, SKIM, protocol, tools=tools) for ref in one.frame_refs
            ] == [SKIM]
        assert observation_message(CROPS, [], protocol, DIGIT).frame_refs == CROPS
        assert observation_message(CROPS, ["late"], protocol, DIGIT).role == "user"


def test_a_system_prompt_replaces_the_presets() -> None:
    messages = first_messages(DIGIT, SKIM, PROTOCOLS["videotemp"], tools=True, system_prompt="Mine.")
    assert messages[0].text == "Mine."
    messages = first_messages(DIGIT, SKIM, PROTOCOLS["videotemp"], tools=True, system_prompt="")
    assert [message.role for message in messages] == ["user"]


def test_museg_and_taro_have_no_system_message_without_the_tool() -> None:
    for name in ("museg", "museg_plain", "taro"):
        assert [one.role for one in first_messages(DIGIT, SKIM, PROTOCOLS[name], tools=False)] == ["user"]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_call_that_a_prompt_shows_is_one_that_is_read(name: str) -> None:
    protocol = PROTOCOLS[name]
    system = first_messages(DIGIT, SKIM, protocol, tools=True)[0].text
    if "<tool_call>" not in system:
        return
    call = system[system.index("<tool_call>") : system.index("</tool_call>")]
    parsed = parse_reply(f"<think>x</think>{call}</tool_call>", protocol)
    assert parsed.call is not None


def test_more_options_than_letters() -> None:
    with pytest.raises(ConfigError, match="at most 26"):
        question_block(DIGIT.model_copy(update={"options": ("x",) * 27}))


def test_programmer_errors() -> None:
    small = PROTOCOLS["small"]
    with pytest.raises(ValueError, match="at least one crop or one error"):
        observation_message([], [], small, DIGIT)
    with pytest.raises(ValueError, match="no segments"):
        write_segments([], small)
    with pytest.raises(ValueError, match="no segments"):
        write_call([], small)


@pytest.mark.parametrize(
    ("seconds", "decimals", "text"),
    [(68.125, None, "68.125"), (68.125, 2, "68.12"), (68.125, 1, "68.1"), (68.125, 0, "68"), (0.0, None, "0")]
    + [(10.0, None, "10"), (10.5, None, "10.5"), (100.0, None, "100"), (1 / 3, None, "0.333")],
)
def test_seconds(seconds: float, decimals: int | None, text: str) -> None:
    assert write_seconds(seconds, decimals) == text


if __name__ == "__main__":
    for preset in PROTOCOLS:
        (GOLDEN / f"{preset}.txt").write_text(transcript(preset), encoding="utf-8")
