"""Every sentence that a prompt says, in one place. Protocols (``protocol.py``) choose among them."""

from __future__ import annotations

from timeloupe.trajectory import Task

TOOL_NAME = "get_video_clip_frame"

LOOK_CLOSER = f"""You answer questions about a video. You first see all of it at a low frame rate, so what matters may \
happen between two of the frames, or be too short to make out.

Open every reply with your reasoning inside <think></think>. Follow it with exactly one of these, and then stop:
- <tool_call>{{"name": "{TOOL_NAME}", "arguments": [{{"start_time": 12.5, "end_time": 20}}]}}</tool_call> shows you \
parts of the video again at a higher frame rate. Give one entry for each part. Times are seconds of the whole video, \
also when you have been shown a part of it.
- <answer></answer> holds your final answer. Give it as soon as you have seen enough."""

ANSWER_NOW = """You answer questions about a video.

Open your reply with your reasoning inside <think></think>. Follow it with your final answer inside <answer></answer>, \
and then stop."""

SHOWN = "These are the parts you asked for. Ask for other parts, or answer."
NOT_SHOWN = "Not every part could be shown. Go on with what you have seen."

LETTER = "Write only the letter of the right option inside <answer></answer>."
SHORT = "Write a short answer inside <answer></answer>."

VIDEOTEMP_HINTS: dict[Task, str] = {
    "multiple_choice": LETTER,
    "grounding": "Write when it happens as [start, end], in seconds, inside <answer></answer>.",
    "multi_segment": "Write every time it happens as [[start, end], [start, end]], in seconds and in order, "
    "inside <answer></answer>.",
    "what_when_where": "Write a short answer, and when it can be seen as [start, end] in seconds, inside "
    "<answer></answer>.",
    "open": SHORT,
}

MUSEG_TIMED = (
    "While you reason inside <think></think>, name the second at which you saw each thing that counts."
)
MUSEG_PLAIN = "Reason inside <think></think> first."


def museg_hints(reason: str) -> dict[Task, str]:
    """Return the hints of MUSEG; ``reason`` is what they say of the thought."""
    return {
        "multiple_choice": f"{reason} {LETTER}",
        "grounding": f"{reason} Write its start and end in seconds with two decimals inside <answer></answer>, "
        "joined by a hyphen without blanks: <answer>4.20-9.85</answer>.",
        "multi_segment": f"{reason} Write the start and end of each occurrence in seconds with two decimals inside "
        "<answer></answer>, joined by a hyphen, and one blank between occurrences: "
        "<answer>4.20-9.85 31.00-40.50</answer>.",
        "what_when_where": f"{reason} {SHORT}",
        "open": f"{reason} {SHORT}",
    }


TARO_REASON = (
    "Inside <think></think>, go through the video in order and give the time range of everything you rely on, also of "
    "what comes before and after and does not belong."
)
TARO_EXAMPLE = (
    "For example: <think>From 2.00s to 6.40s a man walks to the shelf; that is not it yet. From 6.40s to 11.20s he "
    "takes down a box. After 11.20s he leaves.</think><answer>6.40s to 11.20s</answer>"
)
TARO_HINTS: dict[Task, str] = {
    "multiple_choice": f"{TARO_REASON} {LETTER}",
    "grounding": f"{TARO_REASON} Write when it happens in seconds with two decimals inside <answer></answer>. "
    f"{TARO_EXAMPLE}",
    "multi_segment": f"{TARO_REASON} Write when it happens in seconds with two decimals, one line for each time, "
    f"inside <answer></answer>. {TARO_EXAMPLE}",
    "what_when_where": f"{TARO_REASON} {SHORT}",
    "open": f"{TARO_REASON} {SHORT}",
}

BOX_UNITS = {"thousandths": "thousandths of the frame's width and height", "pixels": "pixels of the frame"}
"""What the numbers of a box count, in words, by ``Protocol.box_scale``."""

OPENO3_TIMES = "Inside <think></think>, mark every time that you rely on, as in <t>7.5</t>s."
OPENO3_SPAN = "From <t>6.0</t>s to <t>9.5</t>s"


def openo3_hints(unit: str) -> dict[Task, str]:
    """Return the hints of Open-o3 for a model whose box coordinates count ``unit``."""
    evidence = (
        "Inside <think></think>, mark every object that you rely on with its box [x1, y1, x2, y2] in "
        f"{unit} and its time, as in <obj>red kettle</obj><box>[120, 80, 310, 402]</box>at<t>7.5</t>s."
    )
    return {
        "multiple_choice": LETTER,
        "grounding": f"{OPENO3_TIMES} Write when it happens inside <answer></answer>, as in "
        f"<answer>{OPENO3_SPAN}</answer>.",
        "multi_segment": f"{OPENO3_TIMES} Write each time it happens on a line of its own inside <answer></answer>, "
        f"as in <answer>{OPENO3_SPAN}</answer>.",
        "what_when_where": f"{evidence} {SHORT}",
        "open": f"{evidence} {SHORT}",
    }


SMALL_WITH_TOOL = "Look closer, then answer."
SMALL_WITHOUT_TOOL = "Answer now."
