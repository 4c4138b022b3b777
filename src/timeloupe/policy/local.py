"""A policy that runs a checkpoint in this process: batched sampling with a key-value cache.

What a request gets does not depend on the requests beside it (up to rounding): each has its own random
numbers, and positions are computed here, never left to the model's own state. Requests with the same prompt
are read once. A fault of the machine (out of memory, ...) costs only the requests that cannot be run even
alone.

Shapes: B rows, T prompt tokens, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from timeloupe.errors import ConfigError, boundary
from timeloupe.model.cache import make_cache
from timeloupe.model.episode import TokenEpisode
from timeloupe.model.expand import expand
from timeloupe.model.load import LoadedModel
from timeloupe.model.render import render
from timeloupe.policy.base import GenerationRequest
from timeloupe.policy.sampling import choose
from timeloupe.prompt.frames_as_images import DEFAULT_TIME_FORMAT, check_time_format, frames_as_images
from timeloupe.trajectory import Generation, Usage


@dataclass
class _Job:
    """One request on its way through a batch."""

    request: GenerationRequest
    episode: TokenEpisode
    num_prompt_tokens: int
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: str | None = None
    seconds: float = 0.0

    @property
    def cost(self) -> int:
        """Tokens it can fill in the cache."""
        return self.num_prompt_tokens + self.request.sampling.max_new_tokens


class LocalPolicy:
    """Plays with a loaded checkpoint.

    Args:
        loaded: The checkpoint.
        name: Name in records; default ``local:`` and the checkpoint's name.
        max_batch_tokens: Cache positions of one batch, padding and new tokens included: bounds memory.
        max_batch_size: Rows of one batch.
        send: ``video`` = a clip is a video; ``images`` = every frame is a picture after its time in words, as a
            server without video is shown it.
        time_format: How that time is printed.

    Log-probabilities in a ``Generation`` are the model's own (temperature 1, nothing banned or cut off), as a
    teacher-forced pass gives them. Special tokens other than the end of a turn, and ids that the tokenizer
    does not know, are never sampled.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        name: str | None = None,
        max_batch_tokens: int = 65_536,
        max_batch_size: int = 64,
        send: Literal["video", "images"] = "video",
        time_format: str = DEFAULT_TIME_FORMAT,
    ) -> None:
        if send not in ("video", "images"):
            raise boundary("send", send, ("video", "images"))
        self.loaded = loaded
        self.send = send
        self.time_format = check_time_format(time_format)
        self.max_batch_tokens = max_batch_tokens
        self.max_batch_size = max_batch_size
        self._name = name or f"local:{loaded.name}"
        self.banned_V = banned_tokens(loaded)

    @property
    def name(self) -> str:
        """Short name for records."""
        return self._name

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Return one generation per request, in order; a machine's fault is ``finish="error"``.

        Raises:
            ConfigError: A request is wrong in itself: clips and frame references do not match, ...
        """
        start = time.perf_counter()
        jobs = [self._job(request) for request in requests]
        done: dict[int, Generation] = {}
        for batch in self._batches(jobs):
            for job, generation in zip(batch, self._run(batch, start), strict=True):
                done[id(job)] = generation
        return [done[id(job)] for job in jobs]

    def _job(self, request: GenerationRequest) -> _Job:
        loaded = self.loaded
        messages, clips = request.messages, request.clips
        if self.send == "images":
            messages, clips = frames_as_images(messages, clips, self.time_format)
        episode = render(messages, clips, loaded.chat, loaded.layout, generations=request.generations)
        return _Job(request, episode, expanded_length(episode, loaded))

    def _batches(self, jobs: Sequence[_Job]) -> list[list[_Job]]:
        """Group jobs of similar length, so that little is padding and no batch is too large."""
        batches: list[list[_Job]] = []
        largest = 0
        for job in sorted(jobs, key=lambda job: -job.cost):
            full = not batches or len(batches[-1]) >= self.max_batch_size
            if full or largest * (len(batches[-1]) + 1) > self.max_batch_tokens or job.cost < largest / 2:
                batches.append([])
                largest = job.cost
            batches[-1].append(job)
        return batches

    def _run(self, batch: list[_Job], start: float) -> list[Generation]:
        """Run a batch; if that fails, each half alone, down to single requests."""
        try:
            with torch.inference_mode():
                _decode(batch, self.loaded, self.banned_V, start)
            return [_generation(job, self.loaded) for job in batch]
        except ConfigError:
            raise
        except Exception as error:  # the machine's fault becomes a value
            reason = f"{type(error).__name__}: {error}"
        if self.loaded.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(batch) == 1:
            seconds = time.perf_counter() - start
            return [Generation(text="", finish="error", error=reason, seconds=seconds)]
        for job in batch:
            job.ids, job.logprobs, job.finish = [], [], None
        half = len(batch) // 2
        return self._run(batch[:half], start) + self._run(batch[half:], start)


def banned_tokens(loaded: LoadedModel) -> torch.Tensor:
    """Return bool (V,): ids that must not be sampled, on the model's device."""
    layout, tokenizer = loaded.layout, loaded.tokenizer
    head: Any = loaded.model.get_output_embeddings()
    size = head.weight.shape[0]
    special = [index for index, token in tokenizer.added_tokens_decoder.items() if token.special]
    banned = torch.zeros(size, dtype=torch.bool)
    banned[len(tokenizer) :] = True
    banned[[*special, *layout.vision_token_ids, *layout.never_sample]] = True
    banned[list(layout.eos_token_ids)] = False
    return banned.to(loaded.device)


def expanded_length(episode: TokenEpisode, loaded: LoadedModel) -> int:
    """Return the number of tokens that an episode expands to."""
    return expand([episode], loaded.layout, pixels=False).input_ids_BT.shape[1]


def _same_prompt(one: TokenEpisode, other: TokenEpisode) -> bool:
    return one.token_ids == other.token_ids and all(
        a.at_seconds == b.at_seconds and (a.pixels is b.pixels or np.array_equal(a.pixels, b.pixels))
        for a, b in zip(one.clips, other.clips, strict=True)
    )


def _decode(jobs: Sequence[_Job], loaded: LoadedModel, banned_V: torch.Tensor, start: float) -> None:
    """Fill ``ids``, ``logprobs``, ``finish`` and ``seconds`` of the jobs."""
    model, layout = loaded.model, loaded.layout
    device = loaded.device
    prompts: list[TokenEpisode] = []
    prompt_of: list[int] = []
    for job in jobs:
        known = (index for index, prompt in enumerate(prompts) if _same_prompt(prompt, job.episode))
        prompt_of.append(next(known, len(prompts)))
        if prompt_of[-1] == len(prompts):
            prompts.append(job.episode)
    batch = expand(prompts, layout, pad_side="left").to(device)
    cache = make_cache(model.config.get_text_config())
    inputs = batch.model_inputs()
    padded = not bool(batch.attention_mask_BT.all())
    out = model(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
    rows = torch.tensor(prompt_of, device=device)
    if len(prompts) < len(jobs):
        cache.batch_select_indices(rows)
    logits_BV, mask_BT = out.logits[:, -1].index_select(0, rows), batch.attention_mask_BT[rows]
    next_position_B = batch.position_ids_3BT.amax(dim=(0, 2))[rows] + 1
    uniform = [_uniform(job.request) for job in jobs]
    active = list(range(len(jobs)))
    for step in range(max(job.request.sampling.max_new_tokens for job in jobs)):
        samplings = [jobs[index].request.sampling for index in active]
        draws_B = torch.stack([uniform[index][min(step, len(uniform[index]) - 1)] for index in active])
        ids_B, logprobs_B = choose(logits_BV, banned_V, samplings, draws_B)
        for index, token, logprob in zip(active, ids_B.tolist(), logprobs_B.tolist(), strict=True):
            _append(jobs[index], token, logprob, loaded, start)
        alive = [row for row, index in enumerate(active) if jobs[index].finish is None]
        if not alive:
            return
        if len(alive) < len(active):
            kept = torch.tensor(alive, device=device)
            cache.batch_select_indices(kept)
            ids_B, mask_BT, next_position_B = ids_B[kept], mask_BT[kept], next_position_B[kept]
            active = [active[row] for row in alive]
        mask_BT = torch.nn.functional.pad(mask_BT, (0, 1), value=1)
        out = model(
            input_ids=ids_B[:, None], attention_mask=mask_BT if padded else None, past_key_values=cache,
            position_ids=next_position_B[None, :, None].expand(3, -1, 1), use_cache=True,
        )  # fmt: skip
        logits_BV, next_position_B = out.logits[:, -1], next_position_B + 1


def _uniform(request: GenerationRequest) -> torch.Tensor:
    """Return the request's own random numbers, one per step, float64."""
    generator = torch.Generator().manual_seed(request.seed & (2**63 - 1))
    count = max(request.sampling.max_new_tokens, 1)
    return torch.rand(count, dtype=torch.float64, generator=generator)


def _append(job: _Job, token: int, logprob: float, loaded: LoadedModel, start: float) -> None:
    sampling = job.request.sampling
    job.ids.append(token)
    job.logprobs.append(min(logprob, 0.0))
    if token in loaded.layout.eos_token_ids or _stopped(job, loaded):
        job.finish = "stop"
    elif len(job.ids) >= sampling.max_new_tokens:
        job.finish = "length"
    if job.finish is not None:
        job.seconds = time.perf_counter() - start


def _stopped(job: _Job, loaded: LoadedModel) -> bool:
    stops = job.request.sampling.stop
    if not stops:
        return False
    longest = max(len(stop.encode()) for stop in stops)
    tail = loaded.tokenizer.decode(job.ids[-longest:])
    return any(stop in tail for stop in stops)


def _generation(job: _Job, loaded: LoadedModel) -> Generation:
    ids = job.ids[:-1] if job.ids and job.ids[-1] in loaded.layout.eos_token_ids else job.ids
    return Generation(
        text=loaded.tokenizer.decode(ids, skip_special_tokens=True),
        finish="stop" if job.finish == "stop" else "length",
        usage=Usage(prompt_tokens=job.num_prompt_tokens, completion_tokens=len(job.ids)),
        token_ids=tuple(job.ids), logprobs=tuple(job.logprobs), seconds=job.seconds,
    )  # fmt: skip
