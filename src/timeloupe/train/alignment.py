"""The first stage of the small model: visual tokens learn the words for what a frame shows.

For a rendered frame, the merged visual token is compared with the tied word embeddings of colours, shapes and digits,
and, where a stage asks for it, with those of the numbers that the box of the shape is written with; for these it is
rotated as in the read-outs of ``train.supervision``. Extra supervision that the papers do not have.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from timeloupe.model.episode import Clip
from timeloupe.model.expand import merge_grids
from timeloupe.model.frames import grid_of, patchify
from timeloupe.model.load import LoadedModel
from timeloupe.train.supervision import ROTATIONS
from timeloupe.train.world_rows import RenderedReader
from timeloupe.world.script import COLOURS, SHAPES, generator, make_script
from timeloupe.world.teach_evidence import BOX_GRID, BOX_NUMBERS, written_box


def alignment_batch(world_seed: int, step: int, batch: int, frame_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return frames (N, S, S, 3) uint8 and their facts (N, 5).

    Facts are colour, shape (or the number of shapes), digit (or 10), and left and top of the shape's box in steps of
    ``BOX_GRID`` (or -1).
    """
    random = generator("alignment", world_seed, step)
    frames: list[np.ndarray] = []
    facts: list[tuple[int, ...]] = []
    while len(frames) < batch:
        script = make_script(world_seed, int(random.integers(1 << 40)))
        reader = RenderedReader(script, random)
        times: list[float] = []
        for event in script.events:
            # The digit is half of what there is to learn; a frame without any event is rare enough to be asked for.
            for span in (event.segment, event.digit_segment, event.digit_segment):
                times.append(random.uniform(span.start_seconds, span.end_seconds - 1 / script.fps))
            times.append(random.uniform(0, script.duration_seconds))
        read = reader.read(tuple(times), (frame_size, frame_size))
        for pixels, time in zip(read.pixels, read.at_seconds, strict=True):
            shown = script.event_at(time)
            colour = list(COLOURS).index(script.scenes[script.scene_at(time)].colour)
            shape = len(SHAPES) if shown is None else SHAPES.index(shown.shape)
            with_digit = shown is not None and (
                shown.digit_segment.start_seconds <= time < shown.digit_segment.end_seconds
            )
            frames.append(pixels)
            left, top = (
                (-1, -1) if shown is None else (value // BOX_GRID for value in written_box(shown, time)[:2])
            )
            facts.append((colour, shape, shown.digit if shown is not None and with_digit else 10, left, top))
    return np.stack(frames[:batch]), np.array(facts[:batch])


def alignment_loss(
    loaded: LoadedModel, frames_NHWC: np.ndarray, facts_N5: np.ndarray, *, boxes: bool = False
) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the summed cross-entropy over colour, shape and digit, and the share of each named right.

    With ``boxes`` also over left and top of the box, in frames that have a shape.
    """
    encode = loaded.tokenizer.convert_tokens_to_ids
    none = encode("<|none|>")
    vocabularies = {
        "colour": [_word_id(loaded, colour) for colour in COLOURS],
        "shape": [*(_word_id(loaded, shape) for shape in SHAPES), none],
        "digit": [*(encode(str(digit)) for digit in range(10)), none],
    }
    clip = Clip(frames_NHWC, tuple(float(index) for index in range(len(frames_NHWC))))
    patches = patchify([clip], loaded.layout).to(loaded.device)
    grid = merge_grids(torch.tensor([grid_of(clip, loaded.layout)], device=loaded.device))
    core: Any = loaded.model.base_model
    tokens_NH = core.visual(patches, grid_thw=grid, return_dict=True).pooler_output
    tokens_NH = F.rms_norm(tokens_NH, (tokens_NH.shape[-1],))
    embeddings_VH = core.language_model.embed_tokens.weight
    total = tokens_NH.new_zeros(())
    shares: dict[str, float] = {}
    if boxes:
        numbers = [encode(str(number)) for number in BOX_NUMBERS]
        vocabularies |= {"box_left": numbers, "box_top": numbers}
    facts = torch.from_numpy(facts_N5).to(loaded.device)
    for column, (name, ids) in enumerate(vocabularies.items()):
        kept_N = facts[:, column] >= 0
        turned_NH = tokens_NH.roll(-round(ROTATIONS.get(name, 0.0) * tokens_NH.shape[-1]), -1)
        logits = turned_NH[kept_N] @ embeddings_VH[torch.tensor(ids)].T
        targets = facts[kept_N, column]
        total = total + F.cross_entropy(logits, targets)
        shares[name] = (logits.argmax(-1) == targets).float().mean().item()
    return total, shares


def _word_id(loaded: LoadedModel, word: str) -> int:
    return loaded.tokenizer.encode(f" {word}", add_special_tokens=False)[0]
