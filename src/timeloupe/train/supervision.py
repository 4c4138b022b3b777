"""Extra supervision in the middle of the small model; the papers have none of it.

Looking something up in the prompt takes two steps: the place must have gathered what is asked of it (its relevance, its
time, the letter before it), then the answer must find the place. Learning both at once from the answer alone takes a
model of a million parameters hours. So the first step is taught where it happens: after one of the middle layers, each
place names what it has gathered, by the tied word embeddings. The read-outs share one hidden state; each reads it
rotated by another part of its width, so that they do not collide:

1. relevance, at visual tokens: what the frame has to do with the question, or the digit to be read in it;
2. previous time, at visual tokens: the printed time of the frame before;
3. own time, at visual tokens: the printed time of this frame;
4. option letter, at the digits of the option list: the letter of the option;
5. box left and box top, at visual tokens that show what is asked for in rows of what, when and where: the numbers that
   its box is written with.

These are targets, never inputs.

Shapes: B rows, T tokens, H hidden size, V vocabulary, N places, C candidates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from timeloupe.errors import ConfigError
from timeloupe.model.expand import ModelBatch
from timeloupe.world.teach_evidence import BOX_NUMBERS
from timeloupe.world.teacher import RELEVANCE_LABELS

ROTATIONS = {
    "relevance": 0.0, "previous_time": 0.5, "own_time": 0.25, "option_letter": 0.75, "box_left": 0.125,
    "box_top": 0.625,
}  # fmt: skip
"""Read-out name to the part of the hidden width by which it is rotated."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Token ids of the small model that read-outs may name.

    Attributes:
        labels: Relevance label or digit to its index in ``label_ids_C``.
        label_ids_C: Their token ids.
        number_ids_C: Ids of the whole numbers 0, 1, 2, ...: seconds, and thousandths of the frame.
        letter_ids_C: Ids of the option letters as options are printed.
        named_letter_ids_C: Ids of the same letters as a reply names them after a digit.
        dot_id: Id of what stands between letter and option.
    """

    labels: dict[str, int]
    label_ids_C: torch.Tensor
    number_ids_C: torch.Tensor
    letter_ids_C: torch.Tensor
    named_letter_ids_C: torch.Tensor
    dot_id: int


def read_vocabulary(tokenizer: Any, device: torch.device | None = None) -> Vocabulary:
    """Return the read-out vocabulary of the small model's tokenizer, its tensors on ``device``.

    Raises:
        ConfigError: It is another model's tokenizer.
    """
    known = tokenizer.get_vocab()
    tokens = {label: f"<|{label}|>" for label in RELEVANCE_LABELS} | {
        str(digit): str(digit) for digit in range(10)
    }
    missing = [token for token in tokens.values() if token not in known]
    if missing:
        raise ConfigError(
            f"the tokenizer has no {missing[0]!r}: set the stage's readout_weight to 0 for this model"
        )
    numbers: list[int] = []
    while str(len(numbers)) in known:
        numbers.append(known[str(len(numbers))])

    def single(text: str) -> int:
        return tokenizer.encode(text, add_special_tokens=False)[0]

    def ids(values: Iterable[int]) -> torch.Tensor:
        return torch.tensor(list(values), device=device)

    return Vocabulary(
        {label: index for index, label in enumerate(tokens)}, ids(known[token] for token in tokens.values()),
        ids(numbers), ids(known[letter] for letter in "ABCD"), ids(single(f" ({letter})") for letter in "ABCD"),
        single(". "),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Readout:
    """Places of a batch and what each must name: ``rows_N``, ``columns_N``, and indices into ``candidates_C``."""

    rows_N: torch.Tensor
    columns_N: torch.Tensor
    targets_N: torch.Tensor
    candidates_C: torch.Tensor


def readouts(
    batch: ModelBatch,
    labels: Sequence[Sequence[str]],
    seconds: Sequence[Sequence[int]],
    vocabulary: Vocabulary,
    corners: Sequence[Sequence[tuple[int, int] | None]] = (),
) -> dict[str, Readout]:
    """Return the read-outs of a batch by name; those without a place are left out.

    Args:
        batch: Its ``spans`` say where each frame's visual token is.
        labels: For every clip of the batch, one relevance label a frame.
        seconds: For every clip, the printed whole second of each frame.
        vocabulary: Token ids.
        corners: For every clip, left and top of the box of each frame as written, ``None`` where there is none; empty =
            no clip has any.
    """
    rows: dict[str, list[tuple[int, int, int]]] = {name: [] for name in ROTATIONS if name != "option_letter"}
    for span, clip_labels, clip_seconds in zip(batch.spans, labels, seconds, strict=True):
        for frame, (column, label) in enumerate(zip(span.group_starts, clip_labels, strict=True)):
            rows["relevance"].append((span.row, column, vocabulary.labels[label]))
            rows["own_time"].append((span.row, column, clip_seconds[frame]))
            if frame:
                rows["previous_time"].append((span.row, column, clip_seconds[frame - 1]))
    for span, clip_corners in zip(batch.spans, corners, strict=bool(corners)):
        for column, corner in zip(span.group_starts, clip_corners, strict=True):
            if corner is not None:
                rows["box_left"].append((span.row, column, BOX_NUMBERS.index(corner[0])))
                rows["box_top"].append((span.row, column, BOX_NUMBERS.index(corner[1])))
    found: dict[str, Readout] = {}
    for name, places in rows.items():
        if places:
            rows_N, columns_N, targets_N = torch.tensor(places, device=batch.input_ids_BT.device).unbind(1)
            candidates = vocabulary.label_ids_C if name == "relevance" else vocabulary.number_ids_C
            if name.startswith("box"):
                candidates = candidates[list(BOX_NUMBERS)]
            found[name] = Readout(rows_N, columns_N, targets_N, candidates)
    ids_BT = batch.input_ids_BT
    is_option = torch.isin(ids_BT[:, 2:], vocabulary.number_ids_C) & (ids_BT[:, 1:-1] == vocabulary.dot_id)
    letter_BT = (ids_BT[:, :-2, None] == vocabulary.letter_ids_C).long()
    rows_N, columns_N = (is_option & letter_BT.any(-1)).nonzero(as_tuple=True)
    if len(rows_N):
        targets_N = letter_BT[rows_N, columns_N].argmax(-1)
        found["option_letter"] = Readout(rows_N, columns_N + 2, targets_N, vocabulary.named_letter_ids_C)
    return found


def readout_loss(
    head_VH: torch.Tensor, middle_BTH: torch.Tensor, found: dict[str, Readout], weights: dict[str, float]
) -> tuple[torch.Tensor, dict[str, float]]:
    """Return the weighted sum of mean cross-entropies (nats) and the share of each read-out named right.

    Args:
        head_VH: Tied word embeddings.
        middle_BTH: Normalised hidden states after the read-out layer.
        found: What ``readouts`` returned.
        weights: Weight by read-out name.
    """
    total = head_VH.new_zeros(())
    right: dict[str, float] = {}
    width = middle_BTH.shape[-1]
    for name, readout in found.items():
        hidden_NH = middle_BTH[readout.rows_N, readout.columns_N].roll(-round(ROTATIONS[name] * width), -1)
        logits_NC = hidden_NH @ head_VH[readout.candidates_C].T
        total = total + weights[name] * F.cross_entropy(logits_NC, readout.targets_N)
        right[name] = (logits_NC.argmax(-1) == readout.targets_N).float().mean().item()
    return total, right
