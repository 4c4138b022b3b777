"""Supervised fine-tuning: rows in, cross-entropy on the turns that the mask keeps, weights out. Read it top to bottom.

The same loop fine-tunes a 7B checkpoint on recorded trajectories and trains the small model from nothing on the world.
World stages add supervision in the middle of the model that the papers do not have (``train.supervision``).
"""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from timeloupe.environment.rollout import derive_seed
from timeloupe.environment.settings import EpisodeSettings
from timeloupe.errors import ConfigError, MissingError, RecordError, boundary
from timeloupe.model.expand import expand
from timeloupe.model.forward import hidden_states
from timeloupe.model.load import LoadedModel, check_device, load_model
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.runs import open_run
from timeloupe.train.alignment import alignment_batch, alignment_loss
from timeloupe.train.checkpoint import Progress, load_checkpoint, save_checkpoint, writing
from timeloupe.train.lora import add_adapters, choose_trainable, has_adapters, merged_weights
from timeloupe.train.loss import token_loss
from timeloupe.train.optimizer import build_optimizers, schedule, set_learning_rate
from timeloupe.train.recipe import (
    AlignmentStage,
    RowStage,
    SftRecipe,
    TimelineStage,
    TrajectoryStage,
    WorldStage,
)
from timeloupe.train.rows import TrainRow, to_episode, trajectory_row
from timeloupe.train.supervision import ROTATIONS, Vocabulary, read_vocabulary, readout_loss, readouts
from timeloupe.train.timeline_rows import TimelineRows
from timeloupe.train.trackers import Trackers, check_trackers
from timeloupe.train.training_run import begin_run, step_line, training_run
from timeloupe.train.world_rows import WorldRows
from timeloupe.trajectory import StopReason, Trajectory, read_trajectories
from timeloupe.video.cache import FrameCache
from timeloupe.world.script import ScriptSettings, generator
from timeloupe.world.teacher import whole_seconds

POOL_BATCHES = 8
"""Batches are cut from a pool of this many, sorted by length, so that little is padded."""

LOG_EVERY = 10
"""Steps that a row of metrics.jsonl averages."""

Log = Callable[[dict[str, Any]], None]
Update = Callable[[Any, LoadedModel, int], tuple[float, dict[str, float]]]


def train_sft(
    recipe: SftRecipe, folder: str | Path, *, resume: bool = False, on_log: Log | None = None
) -> Path:
    """Train as the recipe says and return the folder of the finished checkpoint (``folder/model``).

    ``folder`` gets recipe.json, environment.json, metrics.jsonl (one line per ``LOG_EVERY`` steps) and, every
    ``checkpoint_every`` steps, a checkpoint.

    Args:
        recipe: What to do.
        folder: Run folder.
        resume: Go on where the run in ``folder`` stopped; the numbers are those of an uninterrupted run.
        on_log: Called with every metrics row.

    Raises:
        ConfigError: Another process writes ``folder``, or it holds another recipe's run, or any run at all and
            ``resume`` is false.
    """
    folder = Path(folder)
    _check(recipe)
    with training_run(recipe, folder, resume=resume) as progress:
        return _train(recipe, folder, progress, on_log)


def _train(recipe: SftRecipe, folder: Path, progress: Progress, on_log: Log | None) -> Path:
    """The run itself, from ``progress`` on."""
    loaded = _load(recipe, folder)
    if recipe.model.lora is not None:
        add_adapters(loaded.model, recipe.model.lora, vision=not recipe.model.freeze_vision, seed=recipe.seed)
    begin_run(recipe, folder)
    if progress != Progress(0, 0):
        load_checkpoint(folder, loaded, None)
    if recipe.model.gradient_checkpointing:
        loaded.model.gradient_checkpointing_enable({"use_reentrant": False})
    trackers = Trackers(recipe.trackers, folder, recipe.model_dump(mode="json"))
    log = _logger(folder, progress, recipe, trackers, on_log)
    for number, stage in enumerate(recipe.stages):
        if number < progress.stage:
            continue
        choose_trainable(
            loaded.model, vision=not recipe.model.freeze_vision or isinstance(stage, AlignmentStage)
        )
        optimizers = build_optimizers(loaded.model, stage.optimizer, stage.lr)
        start = progress.step if number == progress.stage else 0
        if start:
            load_checkpoint(folder, loaded, optimizers)
        rows = None if isinstance(stage, AlignmentStage) else _RowUpdate(stage, loaded, folder, recipe.seed)
        update: Update = rows or _align
        loaded.model.train()
        for step in range(start, stage.steps):
            set_learning_rate(optimizers, schedule(step, stage.steps, decay=stage.decay))
            torch.manual_seed(derive_seed(recipe.seed, f"dropout of {stage.name}", 0, step))
            began = time.perf_counter()
            loss, figures = update(stage, loaded, step)
            norm = torch.nn.utils.clip_grad_norm_(loaded.model.parameters(), stage.clip_norm)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            seconds = time.perf_counter() - began
            row = {"stage": stage.name, "step": step, "loss": loss, "norm": norm.item(), "seconds": seconds}
            averages = log(row | figures)
            if averages is not None and _reached(averages, stage.stop_when):
                break
            if (step + 1) % recipe.checkpoint_every == 0 and step + 1 < stage.steps:
                save_checkpoint(folder, loaded, optimizers, Progress(number, step + 1))
        save_checkpoint(folder, loaded, optimizers, Progress(number + 1, 0))
        if rows is not None:
            rows.close()
    trackers.close()
    loaded.model.eval()
    return export(loaded, folder / "model")


class _RowUpdate:
    """Forward and backward over one batch of rows."""

    def __init__(self, stage: RowStage, loaded: LoadedModel, folder: Path, seed: int) -> None:
        self.pool_of = _row_source(stage, loaded, folder, seed)
        self.pool_index = -1
        self.pool: list[list[TrainRow]] = []
        self.middle: list[torch.Tensor] = []
        self.vocabulary: Vocabulary | None = None
        self.weights: dict[str, float] = {}
        self.hook: Any = None
        if isinstance(stage, WorldStage) and stage.readout_weight:
            self.vocabulary = read_vocabulary(loaded.tokenizer, loaded.device)
            self.weights = {
                name: stage.readout_weight * (1.0 if name == "relevance" else 0.5) for name in ROTATIONS
            }
            layers = _text_model(loaded).layers
            layer = layers[min(stage.readout_layer, len(layers)) - 1]
            self.hook = layer.register_forward_hook(lambda module, inputs, output: self.middle.append(output))

    def close(self) -> None:
        """Take the read-out hook off the model."""
        if self.hook is not None:
            self.hook.remove()

    def __call__(self, stage: Any, loaded: LoadedModel, step: int) -> tuple[float, dict[str, float]]:
        rows = self._batch(stage, step)
        size = stage.micro_batch or len(rows)
        parts = [rows[at : at + size] for at in range(0, len(rows), size)]
        episodes = [[to_episode(row, loaded, stage.mask) for row in part] for part in parts]
        num_targets = sum(
            len(segment.token_ids)
            for part in episodes
            for one in part
            for segment in one.segments
            if segment.trained
        )
        shares: dict[str, list[float]] = {}
        total = 0.0
        for part, part_episodes in zip(parts, episodes, strict=True):
            batch = expand(part_episodes, loaded.layout).to(loaded.device)
            figures: dict[str, float] = {}
            self.middle.clear()
            with torch.autocast(loaded.device.type, torch.bfloat16, enabled=loaded.device.type == "cuda"):
                hidden_BTH = hidden_states(loaded.model, batch)
            tokens = token_loss(loaded.model, batch, hidden_BTH)
            loss = tokens.total / num_targets
            if self.vocabulary is not None:
                text = _text_model(loaded)
                labels, seconds, corners = _frame_targets(part)
                found = readouts(batch, labels, seconds, self.vocabulary, corners)
                extra, right = readout_loss(
                    text.embed_tokens.weight, text.norm(self.middle[-1]), found, self.weights
                )
                loss = loss + extra * (len(part) / len(rows))
                figures = right
            loss.backward()
            total += loss.item()
            figures |= _gates(loaded, tokens.before_N, tokens.targets_N, tokens.right_N)
            for name, share in figures.items():
                shares.setdefault(name, []).append(share)
        means = {name: sum(values) / len(values) for name, values in shares.items()}
        return total, {"targets": num_targets} | means

    def _batch(self, stage: RowStage, step: int) -> list[TrainRow]:
        index = step // POOL_BATCHES
        if index != self.pool_index:
            rows = sorted(self.pool_of(index, POOL_BATCHES * stage.batch), key=lambda row: row.cost)
            batches = [rows[at : at + stage.batch] for at in range(0, len(rows), stage.batch)]
            order = generator("batch-order", index).permutation(len(batches))
            self.pool, self.pool_index = [batches[place] for place in order], index
        return self.pool[step % POOL_BATCHES]


def _align(stage: Any, loaded: LoadedModel, step: int) -> tuple[float, dict[str, float]]:
    frame_size = loaded.layout.size_multiple
    frames, facts = alignment_batch(stage.world_seed, step, stage.batch, frame_size)
    loss, shares = alignment_loss(loaded, frames, facts, boxes=stage.boxes)
    loss.backward()
    return loss.item(), shares


def _row_source(
    stage: RowStage, loaded: LoadedModel, folder: Path, seed: int
) -> Callable[[int, int], list[TrainRow]]:
    if isinstance(stage, WorldStage):
        settings = EpisodeSettings(**loaded.layout.details.get("episode", {}))
        protocol = PROTOCOLS[loaded.layout.details.get("protocol", "small")]
        videos = ScriptSettings(
            min_seconds=stage.min_seconds, max_seconds=stage.max_seconds, num_scenes=stage.num_scenes
        )
        mp4 = Path(stage.world_folder or folder / "world") if stage.pixels == "mp4" else None
        return WorldRows(stage.world_seed, stage.mix, settings, protocol, videos, mp4, stage.num_videos).pool
    if isinstance(stage, TimelineStage):
        chosen = loaded.layout.details.get("episode", {}) | {"skim_frames": stage.skim_frames}
        videos = ScriptSettings(min_seconds=stage.min_seconds, max_seconds=stage.max_seconds)
        return TimelineRows(
            stage.world_seed, EpisodeSettings(**chosen), stage.captions, stage.timed,
            script_settings=videos,
        ).pool  # fmt: skip
    assert isinstance(stage, TrajectoryStage)
    trajectories = _recorded(Path(stage.path))
    cache = FrameCache(1 << 30)

    def pool(index: int, size: int) -> list[TrainRow]:
        # Epoch after epoch in a fresh order: row number n of the run is row n mod N of epoch n div N.
        rows: list[TrainRow] = []
        for number in range(index * size, (index + 1) * size):
            epoch, place = divmod(number, len(trajectories))
            order = generator("epoch", seed, epoch).permutation(len(trajectories))
            rows.append(trajectory_row(trajectories[int(order[place])], cache))
        return rows

    return pool


def _recorded(path: Path) -> list[Trajectory]:
    """Return what can be learnt from a JSONL file or a run folder, the last play of each episode.

    Episodes that a machine's fault ended are left out: the reply at which they stopped is not the policy's.
    """
    found = open_run(path).latest() if path.is_dir() else list(read_trajectories(path))
    kept = [one for one in found if one.turns and one.stop is not StopReason.INFRASTRUCTURE]
    if not kept:
        raise ConfigError(
            f"no trajectory to train on among the {len(found)} in {str(path)!r}; record some that end by themselves"
        )
    if len(kept) < len(found):
        warnings.warn(
            f"training on {len(kept)} of {len(found)} trajectories in {str(path)!r}: a machine's fault ended "
            "the others",
            stacklevel=2,
        )
    return kept


def _frame_targets(
    rows: list[TrainRow],
) -> tuple[list[tuple[str, ...]], list[list[int]], list[tuple[tuple[int, int] | None, ...]]]:
    """Relevance labels, printed seconds and box corners of every clip of the rows, in order."""
    labels = [clip for row in rows for clip in row.labels or ()]
    refs = [ref for row in rows for message in row.messages for ref in message.frame_refs]
    seconds = [[whole_seconds(second) for second in ref.at_seconds] for ref in refs]
    corners = [
        one for row in rows for one in row.corners or [(None,) * len(clip) for clip in row.labels or ()]
    ]
    return labels, seconds, corners


_GATES = {
    "start_right": ('{"name":"get_video_clip_frame","arguments":[{"start_time":', "["),
    "end_right": (',"end_time":',),
    "first_word_right": ("<think>",),
    "letter_right": ("<answer>",),
    "digit_letter_right": tuple(str(digit) for digit in range(10)),
}
"""Accuracy of the token after these tokens: mean token accuracy hides a model that cannot ground."""

GATE_FIGURES = (*_GATES, *ROTATIONS, "colour", "shape", "digit")
"""Shares of metrics.jsonl that a stage's ``stop_when`` may name."""


def _gates(
    loaded: LoadedModel, before_N: torch.Tensor, targets_N: torch.Tensor, right_N: torch.Tensor
) -> dict[str, float]:
    figures: dict[str, float] = {}
    known = loaded.tokenizer.get_vocab()
    for name, tokens in _GATES.items():
        ids = [known[token] for token in tokens if token in known]
        places = torch.isin(before_N, torch.tensor(ids, dtype=before_N.dtype, device=before_N.device))
        if name == "letter_right" and "[" in known:
            places &= targets_N != known["["]
        if places.any():
            figures[name] = right_N[places].float().mean().item()
    return figures


def _text_model(loaded: LoadedModel) -> Any:
    return loaded.model.base_model.language_model


def _check(recipe: SftRecipe) -> None:
    """Refuse what no run could do, before a folder is touched."""
    check_trackers(recipe.trackers)
    check_device(recipe.model.device or "cpu")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError("supervised training runs in one process: start it without torchrun or accelerate")
    for stage in recipe.stages:
        for name in stage.stop_when:
            if name not in GATE_FIGURES:
                raise boundary(
                    f"stage {stage.name!r} stops at a figure that there is not", name, GATE_FIGURES
                )


def _load(recipe: SftRecipe, folder: Path) -> LoadedModel:
    source = recipe.model
    if source.from_scratch is not None:
        from timeloupe.train.from_scratch import SmallModelSize, build_checkpoint

        values = source.from_scratch.model_dump()
        frames = {key: values.pop(key) for key in ("skim_frames", "crop_frames")}
        build_checkpoint(folder / "initial", size=SmallModelSize(**values), seed=recipe.seed, **frames)
        return load_model(folder / "initial", device=source.device or "cpu", dtype=source.dtype)
    if source.checkpoint is None:
        raise MissingError("the recipe names no checkpoint; set model.checkpoint or model.from_scratch")
    if source.new_tokens:
        from timeloupe.train.new_tokens import add_tokens

        grown = folder / "initial"
        if not (grown / "config.json").exists():  # a resumed run has it
            add_tokens(source.checkpoint, grown, source.new_tokens, seed=recipe.seed)
        return load_model(grown, device=source.device, dtype=source.dtype)
    return load_model(source.checkpoint, device=source.device, dtype=source.dtype)


def export(loaded: LoadedModel, folder: Path) -> Path:
    """Write the finished model with its tokenizer and ``timeloupe.json``, ready for ``--policy local --model``."""
    merged = merged_weights(loaded.model) if has_adapters(loaded.model) else None
    with writing(folder):
        loaded.model.save_pretrained(folder, state_dict=merged)
    loaded.tokenizer.save_pretrained(folder)
    for path in loaded.folder.iterdir():
        # An index of shards is not copied: ours may be others.
        wanted = path.suffix == ".json" and not path.name.endswith(".index.json")
        if wanted and not (folder / path.name).exists():
            (folder / path.name).write_bytes(path.read_bytes())
    return folder


def _reached(averages: dict[str, Any], stop_when: dict[str, float]) -> bool:
    return bool(stop_when) and all(averages.get(name, 0.0) >= least for name, least in stop_when.items())


def _stands(path: Path, number: int, line: str, progress: Progress, stages: list[str]) -> bool:
    """Whether a line of metrics.jsonl is of before the checkpoint; a torn line is not."""
    if not line.endswith("\n"):
        return False
    row = step_line(path, number, line)
    try:
        stage, step = stages.index(row["stage"]), int(row["step"])
    except (KeyError, TypeError, ValueError) as error:
        raise RecordError(
            f"{path}:{number} names no step of a stage; mend or remove that line and resume"
        ) from error
    return stage < progress.stage or (stage == progress.stage and step <= progress.step)


def _logger(
    folder: Path, progress: Progress, recipe: SftRecipe, trackers: Trackers, on_log: Log | None
) -> Callable[[dict[str, Any]], dict[str, Any] | None]:
    """Return a function that appends averages to metrics.jsonl and returns them, ``None`` in between."""
    pending: list[dict[str, Any]] = []
    stages = [stage.name for stage in recipe.stages]
    path = folder / "metrics.jsonl"
    if path.exists():
        # A killed run has logged steps behind its last checkpoint; they are played again.
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        stand = [_stands(path, number, line, progress, stages) for number, line in enumerate(lines, 1)]
        kept = "".join(line for line, stands in zip(lines, stand, strict=True) if stands)
        path.write_text(kept, encoding="utf-8")

    def log(row: dict[str, Any]) -> dict[str, Any] | None:
        if pending and pending[0]["stage"] != row["stage"]:
            pending.clear()
        pending.append(row)
        if (row["step"] + 1) % LOG_EVERY:
            return None
        keys = dict.fromkeys(key for one in pending for key in one if key not in ("stage", "step"))
        merged = {"stage": row["stage"], "step": row["step"] + 1}
        for key in keys:
            values = [one[key] for one in pending if key in one]
            merged[key] = round(sum(values) / len(values), 5)
        with path.open("a", encoding="utf-8") as out:
            out.write(json.dumps(merged) + "\n")
        before = sum(stage.steps for stage in recipe.stages[: stages.index(row["stage"])])
        trackers(merged | {"step": before + merged["step"]})
        if on_log is not None:
            on_log(merged)
        pending.clear()
        return merged

    return log
