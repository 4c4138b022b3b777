"""What a recipe of reinforcement learning will need: memory per GPU and time per step. Computed, not measured.

Counts come from the model's configuration and the recipe's frames, group and turns; times from the GPU's published
peaks and an assumed share of them. What is left out: the allocator's fragments, CUDA's own context (about 1 GB), the
exchange between GPUs, video decoding, and that roll-outs end at different lengths.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from timeloupe.environment.settings import EpisodeSettings, make_settings
from timeloupe.errors import boundary
from timeloupe.model.layout import DETAILS_FILE, read_episode_defaults
from timeloupe.model.sizes import GIB, GPUS, VISION, ModelSizes, forward_flops, key_value_bytes, vision_flops
from timeloupe.train.grpo_recipe import GrpoRecipe
from timeloupe.train.sharding import check_shardable


@dataclass(frozen=True)
class Assumptions:
    """What no recipe says.

    Attributes:
        gpus: How many.
        gpu: Key of ``GPUS``.
        sharded: Weights, gradients and optimizer state cut among the GPUs.
        looks: Turns of an episode that look; each is shown one crop of the largest size.
        reply_tokens: Mean tokens of a reply.
        text_tokens: Tokens of system prompt, question and printed times.
        utilisation: Share of the peak that large matrix products reach, in (0, 1].
        bandwidth_share: Share of the memory bandwidth that decoding reaches, in (0, 1].
        batch_tokens: Cache positions of one decoding batch of ``policy.local``; vLLM's are in the recipe.
    """

    gpus: int = 8
    gpu: str = "h100"
    sharded: bool = True
    looks: int = 1
    reply_tokens: int = 300
    text_tokens: int = 400
    utilisation: float = 0.35
    bandwidth_share: float = 0.6
    batch_tokens: int = 65_536

    def __post_init__(self) -> None:
        if self.gpu not in GPUS:
            raise boundary("gpu", self.gpu, GPUS)
        if self.gpus < 1 or self.looks < 0 or self.reply_tokens < 1:
            raise boundary(
                "plan", (self.gpus, self.looks, self.reply_tokens), "gpus >= 1, looks >= 0, reply_tokens >= 1"
            )
        for name in ("utilisation", "bandwidth_share"):
            if not 0 < getattr(self, name) <= 1:
                raise boundary(name, getattr(self, name), "above 0, at most 1")


@dataclass(frozen=True)
class Lengths:
    """Tokens of one roll-out, expanded."""

    skim: int
    crop: int
    prompt: int
    whole: int
    sampled: int


def lengths_of(settings: EpisodeSettings, sizes: ModelSizes, given: Assumptions) -> Lengths:
    """Return the tokens of a roll-out whose video fills the skim."""

    def visual(frames: int, pixels: int) -> int:
        if settings.frame_size_wh is not None:
            pixels = settings.frame_size_wh[0] * settings.frame_size_wh[1]
        return math.ceil(frames / sizes.group_frames) * max(pixels // sizes.token_pixels, 1)

    looks = min(given.looks, settings.num_turns - 1)
    skim = visual(settings.skim_frames, settings.skim_pixels)
    crop = visual(settings.crop_max_frames, settings.crop_pixels)
    reply = min(given.reply_tokens, settings.max_new_tokens)
    sampled = (looks + 1) * reply
    return Lengths(
        skim, crop, skim + given.text_tokens, skim + given.text_tokens + looks * crop + sampled, sampled
    )


def trainable_parameters(recipe: GrpoRecipe, sizes: ModelSizes) -> int:
    """Return how many numbers an update changes."""
    lora = recipe.model.lora
    if lora is not None:
        wanted = tuple(f".{name}" for name in lora.target_modules)
        adapted = {name: widths for name, widths in sizes.targets.items() if f".{name}".endswith(wanted)}
        if recipe.model.freeze_vision:
            adapted = {name: widths for name, widths in adapted.items() if VISION not in name}
        return lora.rank * sum(adapted.values())
    return sizes.parameters - (sizes.vision_parameters if recipe.model.freeze_vision else 0)


def optimizer_numbers(recipe: GrpoRecipe, sizes: ModelSizes) -> int:
    """Return how many numbers the optimizer keeps: two per parameter, but one where Muon updates a matrix."""
    trained = trainable_parameters(recipe, sizes)
    if recipe.optimizer != "muon":
        return 2 * trained
    if recipe.model.lora is not None:  # adapters are matrices
        return trained
    frozen = sizes.vision_matrix_parameters if recipe.model.freeze_vision else 0
    return 2 * trained - (sizes.matrix_parameters - frozen)


def activation_bytes(sizes: ModelSizes, tokens: int, learnt: int, *, checkpointing: bool, width: int) -> int:
    """Return what a forward pass keeps for its backward pass, at the peak.

    Args:
        sizes: The model.
        tokens: Of all rows.
        learnt: Of these, the ones whose logits are computed.
        checkpointing: Only the input of every layer is kept, and one layer is computed again at a time.
        width: Bytes of a number in a layer (2 under autocast); what flows between layers, and logits, have 4.
    """
    # Kept per token: two normalised inputs and their float32 sources, queries, keys, values, mixed values, and three
    # widths of the feed-forward part (gate, up, their product; its activation is kept once more).
    inside = width * (2 * sizes.hidden + 2 * sizes.query + 2 * sizes.key_value + 4 * sizes.intermediate)
    between = 4 * 2 * sizes.hidden
    layer = tokens * (inside + between)
    layers = tokens * sizes.layers * 4 * sizes.hidden + layer if checkpointing else sizes.layers * layer
    logits = 3 * 4 * learnt * sizes.vocabulary  # the logits, their softmax, and the gradient
    return layers + logits


def memory_plan(
    recipe: GrpoRecipe, sizes: ModelSizes, lengths: Lengths, given: Assumptions
) -> dict[str, float]:
    """Return bytes per GPU by purpose, and the peaks of the two phases of a step."""
    pieces = given.gpus if given.sharded else 1
    width = {"float32": 4, "bfloat16": 2, "float16": 2}[recipe.model.dtype]
    trained = trainable_parameters(recipe, sizes)
    lora = recipe.model.lora is not None
    engine = recipe.rollout.backend == "vllm"
    held_whole = sizes.vision_parameters if recipe.model.freeze_vision and given.sharded else 0
    cut = (sizes.parameters - held_whole) / pieces
    found: dict[str, float] = {
        "weights": width * (cut + held_whole) + (4 * trained if lora else 0),
        "gradients": (4 if lora else width) * trained / pieces,
        "optimizer": (4 if lora else width) * optimizer_numbers(recipe, sizes) / pieces,
        "reference": width * (cut + held_whole) if recipe.loss.kl_weight and not lora else 0,
        "rollout_copy": 2 * sizes.parameters if given.sharded or engine else 0,
        # Embeddings and head stay gathered through a pass, with their gradient; of the layers two are at a time.
        "gathered": width * (2 * sizes.head_parameters + 2 * sizes.layer_parameters) if given.sharded else 0,
    }
    rows = min(recipe.micro_batch, math.ceil(recipe.prompts / given.gpus) * recipe.group)
    tokens = _packed(rows, recipe.group, lengths)
    found["activations"] = activation_bytes(
        sizes, tokens, rows * lengths.sampled, checkpointing=recipe.model.gradient_checkpointing, width=2
    )
    cache_width = 2 if given.sharded else width
    found["key_values"] = key_value_bytes(sizes, max(given.batch_tokens, lengths.whole), cache_width) + GIB
    always = sum(found[name] for name in ("weights", "optimizer", "reference", "rollout_copy"))
    if engine:  # it takes its memory at the start and keeps it during updates
        found["key_values"] = recipe.rollout.memory_gib * GIB
        found["peak_rollout"] = always = always + found["key_values"]
    else:
        found["peak_rollout"] = always + found["key_values"]
    found["peak_update"] = always + found["gradients"] + found["gathered"] + found["activations"]
    found["peak"] = max(found["peak_rollout"], found["peak_update"])
    return found


def _packed(rows: int, group: int, lengths: Lengths) -> int:
    """Tokens that a pass over ``rows`` roll-outs computes: members of a group share their prompt."""
    return rows * (lengths.whole - lengths.prompt) + math.ceil(rows / group) * lengths.prompt


def time_plan(
    recipe: GrpoRecipe, sizes: ModelSizes, lengths: Lengths, given: Assumptions
) -> dict[str, float]:
    """Return seconds per step by phase and the work behind them, for the busiest GPU."""
    gpu = GPUS[given.gpu]
    groups = math.ceil(recipe.prompts / given.gpus)  # whole groups go to a GPU
    rows = groups * recipe.group
    shown = lengths.whole - lengths.prompt - lengths.sampled
    reading = groups * (forward_flops(sizes, lengths.prompt, heads=1) + vision_flops(sizes, lengths.skim))
    reading += rows * (forward_flops(sizes, shown, before=lengths.prompt) + vision_flops(sizes, shown))
    decoding = rows * forward_flops(
        sizes, lengths.sampled, before=lengths.prompt + shown, heads=lengths.sampled
    )
    engine = recipe.rollout.backend == "vllm"
    width = 2 if engine or given.sharded or recipe.model.dtype != "float32" else 4
    at_once = given.batch_tokens // lengths.whole
    if engine:  # as many as its own memory holds
        held = recipe.rollout.memory_gib * GIB // key_value_bytes(sizes, lengths.whole, width)
        at_once = min(recipe.rollout.max_sequences, int(held))
    batch_rows = max(1, min(rows, at_once))
    steps = math.ceil(rows / batch_rows) * lengths.sampled
    moved = steps * (
        width * (sizes.parameters - sizes.vision_parameters)
        + key_value_bytes(sizes, batch_rows * lengths.whole, width)
    )
    peak = gpu.flops_per_second * given.utilisation
    decode = max(decoding / peak, moved / (gpu.bytes_per_second * given.bandwidth_share))
    size = min(recipe.micro_batch, rows)
    prompts = rows / size * math.ceil(size / recipe.group)
    own = lengths.whole - lengths.prompt
    forward = prompts * forward_flops(sizes, lengths.prompt)
    forward += rows * forward_flops(sizes, own, before=lengths.prompt, heads=lengths.sampled)
    seen = prompts * vision_flops(sizes, lengths.skim) + rows * vision_flops(sizes, shown)
    trained_vision = not recipe.model.freeze_vision
    passes = 3 + recipe.model.gradient_checkpointing + bool(recipe.loss.kl_weight)
    learning = recipe.updates * (
        passes * forward + (passes if trained_vision else 1 + bool(recipe.loss.kl_weight)) * seen
    )
    found = {
        "read_seconds": reading / peak, "decode_seconds": decode, "update_seconds": learning / peak,
        "rollout_flops": reading + decoding, "update_flops": learning,
        "sampled_tokens_per_second": rows * lengths.sampled / (reading / peak + decode),
    }  # fmt: skip
    found["step_seconds"] = found["read_seconds"] + found["decode_seconds"] + found["update_seconds"]
    found["run_hours"] = found["step_seconds"] * recipe.steps / 3600
    return found


def plan(
    recipe: GrpoRecipe, sizes: ModelSizes, settings: EpisodeSettings, given: Assumptions
) -> dict[str, Any]:
    """Return the whole plan as plain values: bytes, seconds, tokens, parameters.

    Raises:
        ConfigError: The training would refuse the recipe on these GPUs.
    """
    if given.sharded:
        check_shardable(recipe)
    if recipe.rollout.backend == "vllm" and given.gpus > 1:
        raise boundary(
            "GPUs of a training with roll-outs in vLLM", given.gpus, "1",
            "plan with --gpus 1, or set rollout.backend to 'local'",
        )  # fmt: skip
    lengths = lengths_of(settings, sizes, given)
    return {
        "note": "computed, not measured",
        "model": sizes.name,
        "parameters": {
            "all": sizes.parameters, "vision": sizes.vision_parameters, "trained": trainable_parameters(recipe, sizes),
        },
        "assumptions": asdict(given) | {"peaks": asdict(GPUS[given.gpu])},
        "looks": min(given.looks, settings.num_turns - 1),
        "left_out": [] if recipe.sensitivity is None else ["the two passes of [sensitivity] over the roll-outs"],
        "tokens": asdict(lengths),
        "memory_bytes": memory_plan(recipe, sizes, lengths, given),
        "fits": memory_plan(recipe, sizes, lengths, given)["peak"] < 0.92 * GPUS[given.gpu].memory_bytes,
        "time": time_plan(recipe, sizes, lengths, given),
    }  # fmt: skip


def episode_settings(
    recipe: GrpoRecipe, sizes: ModelSizes, source: str | Path | None = None
) -> EpisodeSettings:
    """Return the settings of the recipe's episodes for a model of these sizes, as the training has them.

    Args:
        recipe: The recipe.
        sizes: The model's sizes.
        source: The model: where it is a folder with a ``timeloupe.json``, what that asks for counts too.
    """
    own: dict[str, Any] = {}
    if source is not None and (Path(source) / DETAILS_FILE).is_file():
        own, _ = read_episode_defaults(source)
    return make_settings(
        {"size_multiple": math.isqrt(sizes.token_pixels)}, own, {"temperature": 1.0}, recipe.episode
    )


def show(found: dict[str, Any]) -> str:
    """Return a plan as text for people."""
    given, tokens, time = found["assumptions"], found["tokens"], found["time"]
    peaks = given["peaks"]
    lines = [
        f"{found['model']}: {found['parameters']['all'] / 1e9:.2f} billion parameters, "
        f"{found['parameters']['trained'] / 1e9:.3f} trained    COMPUTED, NOT MEASURED",
        f"{given['gpus']} x {given['gpu']}{', sharded' if given['sharded'] else ''}: "
        f"{peaks['flops_per_second'] / 1e12:.0f} TFLOP/s bfloat16 at {given['utilisation']:.0%}, "
        f"{peaks['bytes_per_second'] / 1e12:.2f} TB/s at {given['bandwidth_share']:.0%}",
        f"a roll-out: {tokens['skim']} tokens of skim, "
        + (f"{found['looks']} crops of {tokens['crop']}, " if found["looks"] else "")
        + f"{tokens['sampled']} sampled, {tokens['whole']} in all",
        *(f"left out: {what}" for what in found["left_out"]),
        "",
        "memory per GPU, GiB",
    ]
    lines += [f"  {name:<14}{value / GIB:8.1f}" for name, value in found["memory_bytes"].items()]
    room = "fits" if found["fits"] else "DOES NOT FIT"
    lines += [f"  {room} in {peaks['memory_bytes'] / GIB:.1f}, a twelfth kept free", "", "time"]
    for name in ("read", "decode", "update", "step"):
        lines.append(f"  {name:<14}{time[name + '_seconds']:8.1f} s")
    lines += [
        f"  {'run':<14}{time['run_hours']:8.1f} h",
        f"  {'sampled':<14}{time['sampled_tokens_per_second']:8.0f} tokens/s and GPU",
    ]
    return "\n".join(lines)
