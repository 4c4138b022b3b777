"""The files that a server needs beside a Qwen3-VL checkpoint of ours: a chat template and two processor files.

timeloupe itself reads only mean and deviation from them. A server (vLLM, transformers) builds its processor from them,
and it must do no more than ``timeloupe.model.frames``: cut frames that already fit, and never sample or resize.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

MAX_FRAMES = 768
"""Frames of one clip that the library's processor accepts."""

_TEMPLATE = """\
{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.content is string -%}{{- message.content -}}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'text' -%}{{- part.text -}}
{%- elif 'image' in part.type -%}{{- 'IMAGE' -}}
{%- elif 'video' in part.type -%}{{- '<|video_pad|>' -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def chat_template(*, wrap_frames: bool) -> str:
    """Return a ChatML template that writes a bare ``<|video_pad|>`` for a clip.

    The processor prints the time and the vision tokens of every frame group itself; a pair of vision tokens around the
    placeholder, as the published template has it, would be two tokens more than the training saw.

    Args:
        wrap_frames: Whether vision_start and vision_end stand around an image.
    """
    image = "<|vision_start|><|image_pad|><|vision_end|>" if wrap_frames else "<|image_pad|>"
    return _TEMPLATE.replace("IMAGE", image)


def write_serving_files(
    folder: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    vision: Any,
    *,
    wrap_frames: bool,
    max_pixels: int,
    mean_std: tuple[tuple[float, ...], tuple[float, ...]] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
) -> None:
    """Write preprocessor_config.json and video_preprocessor_config.json, and give ``tokenizer`` a chat template.

    Save the tokenizer after this call: its ``save_pretrained`` writes the template.

    Args:
        folder: The checkpoint's.
        tokenizer: Its tokenizer.
        vision: Its vision configuration.
        wrap_frames: As in ``timeloupe.model.layout.Layout``.
        max_pixels: The largest frame that is served unchanged, in pixels; larger ones would be shrunk.
        mean_std: Of each channel, in fractions of 255.
    """
    folder = Path(folder)
    tokenizer.chat_template = chat_template(wrap_frames=wrap_frames)
    smallest = (vision.patch_size * vision.spatial_merge_size) ** 2
    common: dict[str, Any] = {
        "patch_size": vision.patch_size, "merge_size": vision.spatial_merge_size,
        "temporal_patch_size": vision.temporal_patch_size,
        "image_mean": list(mean_std[0]), "image_std": list(mean_std[1]),
        "processor_class": "Qwen3VLProcessor",
    }  # fmt: skip
    image = {
        **common,
        "image_processor_type": "Qwen2VLImageProcessor",
        "size": {"shortest_edge": smallest, "longest_edge": max_pixels},
    }
    video = {
        **common,
        "video_processor_type": "Qwen3VLVideoProcessor",
        "do_sample_frames": False,
        "cap_pixels_per_frame": False,
        "size": {"shortest_edge": smallest, "longest_edge": max_pixels * MAX_FRAMES},
    }
    for name, content in (("preprocessor_config.json", image), ("video_preprocessor_config.json", video)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
