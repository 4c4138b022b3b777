"""The form ``<think>...</think><answer>...</answer>`` that MUSEG and TaRO reward, and the reply it is looked for in.

Written without regular expressions: each of these takes time linear in the length of the text, whatever it holds.
"""

from __future__ import annotations

from timeloupe.trajectory import StopReason, Trajectory

TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def final_reply(trajectory: Trajectory) -> str | None:
    """Return the whole text of the last reply ("" if there was none), or ``None`` if the machine failed.

    Earlier turns of an episode with a tool are not looked at: the published rewards know one reply only. A stop string
    that a server cut off was put back when the reply was read; a thought that a server took out was not, nor an
    opening tag that the chat template wrote. Such a reply does not have the form.
    """
    if trajectory.stop is StopReason.INFRASTRUCTURE:
        return None
    return trajectory.turns[-1].generation.text if trajectory.turns else ""


def split_think_answer(text: str) -> tuple[str, str] | None:
    """Return the insides of the thought and of the answer, or ``None`` if the text has another form.

    Each of the four tags must stand there exactly once, in order, with nothing but blanks around the two blocks.
    Both may be empty.
    """
    if any(text.count(tag) != 1 for tag in TAGS):
        return None
    text = text.strip()
    thought, _, rest = text.partition("</think>")
    rest = rest.lstrip()
    if not (text.startswith("<think>") and rest.startswith("<answer>") and rest.endswith("</answer>")):
        return None
    # Had the closing tag stood before the opening one, the text would not begin with the opening one.
    if not thought.startswith("<think>"):
        return None
    return thought.removeprefix("<think>"), rest.removeprefix("<answer>").removesuffix("</answer>")


def answer_blocks(text: str) -> list[str]:
    """Return the inside of each ``<answer>...</answer>``, left to right; one reaches to the first closing tag."""
    blocks: list[str] = []
    at = text.find("<answer>")
    while at >= 0:
        start = at + len("<answer>")
        end = text.find("</answer>", start)
        if end < 0:
            break
        blocks.append(text[start:end])
        at = text.find("<answer>", end)
    return blocks
