"""Chat messages to a token episode, in the checkpoint's own chat format.

Token-in, token-out: a reply that was sampled enters with the ids that were sampled, never re-tokenised. Text
is encoded without looking for special tokens in it, so a question that spells ``<|im_end|>`` stays text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from timeloupe.errors import ConfigError, boundary
from timeloupe.model.episode import Clip, TokenEpisode, TokenSegment
from timeloupe.model.layout import Layout
from timeloupe.trajectory import FrameRef, Generation, Message, Text


@dataclass(frozen=True)
class ChatFormat:
    """ChatML, and what a checkpoint's template adds to it.

    Attributes:
        start_id: Opens a message.
        end_id: Closes it.
        default_system: System text that the template puts before a chat that has none, or ``None``.
        reply_prefix: Text that the template opens every reply with.
    """

    start_id: int
    end_id: int
    default_system: str | None = None
    reply_prefix: str = ""


def read_chat_format(tokenizer: Any) -> ChatFormat:
    """Return the chat format of a tokenizer; ChatML without extras if it has no chat template.

    Raises:
        ConfigError: Its template is not ChatML, or it has no ChatML tokens.
    """
    start_id, end_id = (tokenizer.convert_tokens_to_ids(token) for token in ("<|im_start|>", "<|im_end|>"))
    if None in (start_id, end_id) or tokenizer.unk_token_id in (start_id, end_id):
        raise ConfigError(
            "the tokenizer lacks <|im_start|> and <|im_end|>: only ChatML checkpoints are supported"
        )
    if not getattr(tokenizer, "chat_template", None):
        return ChatFormat(start_id, end_id)
    probe = [{"role": role, "content": f"{role} text"} for role in ("user", "assistant", "user")]
    shown = tokenizer.apply_chat_template(probe, tokenize=False, add_generation_prompt=True)
    body = "".join(f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in probe)
    before, found, after = shown.partition(body + "<|im_start|>assistant\n")
    opening, closing = "<|im_start|>system\n", "<|im_end|>\n"
    if not found or (before and not (before.startswith(opening) and before.endswith(closing))):
        raise ConfigError(f"the checkpoint's chat template is not ChatML, it renders {shown!r}")
    default = before[len(opening) : -len(closing)] if before else None
    return ChatFormat(start_id, end_id, default, after)


class _Pen:
    """Collects text, special ids and clips into segments."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.segments: list[TokenSegment] = []
        self.ids: list[int] = []
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def mark(self, *ids: int) -> None:
        self.ids.extend(self.layout.encode(self.text) if self.text else ())
        self.text = ""
        self.ids.extend(ids)

    def close(self) -> None:
        self.mark()
        if self.ids:
            self.segments.append(TokenSegment(tuple(self.ids)))
        self.ids = []

    def reply(self, ids: Sequence[int], trained: bool, logprobs: Sequence[float] | None) -> None:
        self.close()
        if ids:
            kept = None if logprobs is None else tuple(logprobs)
            self.segments.append(TokenSegment(tuple(ids), trained, kept))


def render(
    messages: Sequence[Message],
    clips: Sequence[np.ndarray],
    chat: ChatFormat,
    layout: Layout,
    *,
    generations: Sequence[Generation] = (),
    trained: bool | Sequence[bool] = False,
    ask_reply: bool = True,
) -> TokenEpisode:
    """Return the token episode of a chat.

    Args:
        messages: The chat.
        clips: Pixels (N, H, W, 3) uint8 of every ``FrameRef`` of the chat, in order.
        chat: The chat format.
        layout: How clips are laid out.
        generations: One per assistant message, or none at all; their token ids and log-probabilities are used
            as they are. A reply without ids is encoded from its message's text.
        trained: Which assistant messages are targets: one flag for all, or one each. The end-of-turn token of
            a reply is a target with it, unless the reply was sampled and ended without one.
        ask_reply: End with the opening of a new assistant message.

    Raises:
        ConfigError: Counts do not match.
    """
    num_replies = sum(message.role == "assistant" for message in messages)
    flags = [trained] * num_replies if isinstance(trained, bool) else list(trained)
    if len(flags) != num_replies:
        raise boundary("trained flags", len(flags), f"one per assistant message ({num_replies})")
    if generations and len(generations) != num_replies:
        raise boundary(
            "earlier generations", len(generations), f"one per assistant message ({num_replies}) or none"
        )
    pen, shown, reply_index = _Pen(layout), _Clips(clips), 0
    if chat.default_system is not None and (not messages or messages[0].role != "system"):
        pen.mark(chat.start_id)
        pen.write(f"system\n{chat.default_system}")
        pen.mark(chat.end_id)
        pen.write("\n")
    for message in messages:
        pen.mark(chat.start_id)
        pen.write(f"{message.role}\n")
        if message.role == "assistant":
            generation = generations[reply_index] if generations else None
            _write_reply(pen, message, generation, flags[reply_index], chat)
            reply_index += 1
        else:
            for part in message.parts:
                if isinstance(part, Text):
                    pen.write(part.text)
                else:
                    pen.mark(*layout.placeholder(is_image=shown.take(part).is_image))
            pen.mark(chat.end_id)
        pen.write("\n")
    if ask_reply:
        pen.mark(chat.start_id)
        pen.write(f"assistant\n{chat.reply_prefix}")
    pen.close()
    shown.check_all_taken()
    return TokenEpisode(tuple(pen.segments), tuple(shown.taken))


def _write_reply(
    pen: _Pen, message: Message, generation: Generation | None, trained: bool, chat: ChatFormat
) -> None:
    if message.frame_refs:
        raise ConfigError("an assistant message holds frames: only system and user messages can show them")
    if generation is None or generation.token_ids is None:
        text = message.text
        if chat.reply_prefix and (generation is not None or text.startswith(chat.reply_prefix)):
            pen.write(chat.reply_prefix)
            text = text.removeprefix(chat.reply_prefix)
        pen.reply([*pen.layout.encode(text), chat.end_id], trained, None)
        return
    pen.write(chat.reply_prefix)
    ids = generation.token_ids
    pen.reply(ids, trained, generation.logprobs)
    if not ids or ids[-1] not in pen.layout.eos_token_ids:
        pen.mark(chat.end_id)


class _Clips:
    """Hands out the pixels of frame references in order."""

    def __init__(self, arrays: Sequence[np.ndarray]) -> None:
        self.arrays = arrays
        self.taken: list[Clip] = []

    def take(self, ref: FrameRef) -> Clip:
        if len(self.taken) >= len(self.arrays):
            raise boundary(
                "clips of a chat", len(self.arrays), "one per frame reference, there are more references"
            )
        pixels = self.arrays[len(self.taken)]
        self.taken.append(Clip(pixels, ref.at_seconds, is_image=ref.view == "image"))
        return self.taken[-1]

    def check_all_taken(self) -> None:
        if len(self.taken) != len(self.arrays):
            raise boundary(
                "clips of a chat", len(self.arrays), f"one per frame reference ({len(self.taken)})"
            )
