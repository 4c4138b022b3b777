"""Texts that a model should not write, and might."""

from __future__ import annotations

from hypothesis import strategies as st

TAGS = ("think", "answer", "tool_call", "obj", "box", "t")

PIECES = [f"<{slash}{tag}>" for tag in TAGS for slash in ("", "/")] + [
    "</t>s", "at<t>", "[1,2,3,4]", "[1, 2", "]</box>", "[[1,2,3,4]]", "[NaN,1,2,Infinity]", "[1e400,1,2,3]", "[]",
    "10-20", "10 to 20", "-5", "1e400", "inf", "nan", "9" * 400, "1_0", "\u0661\u0662", "\u00b2", "00:12", "[10, 20]",
    "A", "C", "(C)", "Correct Option: C", "<t>12.5</t>s to <t>15</t>s", "\n", " ", "\x00", "\ud7ff", "\U0001f600",
    '{"name": "get_video_clip_frame", "arguments": [{"start_time": 1, "end_time": 2}]}', "s", ".", "yyyyyyyy",
    "<obj>cat</obj><box>[10,10,50,50]</box>at<t>12</t>s",
]  # fmt: skip


def texts() -> st.SearchStrategy[str]:
    """Return texts made of tags, numbers and noise, well formed and not."""
    free = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
    return st.lists(st.one_of(st.sampled_from(PIECES), free), max_size=14).map("".join)


def _quarter_megabyte(piece: str) -> str:
    return piece * (250_000 // len(piece))


BOMBS = [
    _quarter_megabyte(piece)
    for piece in (
        "<think>", "</think>", "</think> ", "<answer>", "</think><answer>", "<tool_call>", "[", "{", "<t>", "<t>1", "1",
        "1 ", "<obj>a</obj><box>[1]</box>", "<obj>", "<obj>a</obj><box>[", "<box>[", "<box>[1,2,3,4]</box>", "at<t>",
        f"<obj>{'a' * 150}</obj><box>[1,2,3,4]</box>at<t>1</t>s", " ", "y", "C ", "\n", "<t>1</t>s to ",
        "</obj><box>[]</box>at<t>",
    )
] + [f"<t>{'1' * 250_000}", f"<obj>a</obj><box>{'[' * 250_000}]</box>at<t>1</t>s"]  # fmt: skip
