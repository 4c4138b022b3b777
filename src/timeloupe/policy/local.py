"""A policy that runs a checkpoint in this process: batched sampling with a key-value cache.

What a request gets does not depend on the requests beside it (up to rounding): each has its own random
numbers, and positions are computed here, never left to the model's own state. Requests with the same prompt
are read once, and a later turn reads only what came after the last one (``policy.prefix_memory``). A fault of
the machine (out of memory, ...) costs only the requests that cannot be run even alone.

Shapes: B rows, T prompt tokens, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from timeloupe.errors import ConfigError, boundary
from timeloupe.model.decoder import Decoder, can_decode
from timeloupe.model.episode import TokenEpisode
from timeloupe.model.expand import expanded_length
from timeloupe.model.load import LoadedModel
from timeloupe.model.render import render
from timeloupe.policy.base import GenerationRequest
from timeloupe.policy.prefix_memory import Prefix, PrefixMemory
from timeloupe.policy.reading import read
from timeloupe.policy.sampling import choose
from timeloupe.prompt.frames_as_images import DEFAULT_TIME_FORMAT, check_time_format, frames_as_images
from timeloupe.trajectory import Generation, Usage


@dataclass
class _Job:
    """One request on its way through a batch."""

    request: GenerationRequest
    episode: TokenEpisode
    num_prompt_tokens: int
    forced: tuple[int, ...] = ()
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: str | None = None
    seconds: float = 0.0
    prefix: Prefix | None = None

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
        memory_bytes: Bound of the keys and values kept between the turns of episodes; 0 reads every turn anew.

    Attributes:
        num_tokens_read: Prompt tokens that the model has computed so far; what was shared or remembered is not in it.

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
        max_batch_size: int = 256,
        send: Literal["video", "images"] = "video",
        time_format: str = DEFAULT_TIME_FORMAT,
        memory_bytes: int = 1 << 30,
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
        self.memory = PrefixMemory(memory_bytes)
        self.num_tokens_read = 0
        self._weights = -1

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
        weights = self.loaded.weights_version
        if weights != self._weights:
            self.memory.forget()
            self._weights = weights
        jobs = [self._job(request) for request in requests]
        done: dict[int, Generation] = {}
        for batch in self._batches(jobs):
            for job, generation in zip(batch, self._run(batch, start), strict=True):
                done[id(job)] = generation
        return [done[id(job)] for job in jobs]

    def forget(self) -> None:
        """Give back the memory of turns that were played: no episode of before goes on."""
        self.memory.forget()

    def _job(self, request: GenerationRequest) -> _Job:
        loaded = self.loaded
        messages, clips = request.messages, request.clips
        if self.send == "images":
            messages, clips = frames_as_images(messages, clips, self.time_format)
        episode = render(messages, clips, loaded.chat, loaded.layout, generations=request.generations)
        known = _num_known(episode, request)
        prefix = self.memory.take(episode, known) if known else None
        # Fed token by token, so that roll-outs with different beginnings still share the reading of their prompt.
        begun = request.reply_prefix.removeprefix(loaded.chat.reply_prefix)
        forced = tuple(loaded.layout.encode(begun)) if begun else ()
        return _Job(request, episode, expanded_length(episode, loaded.layout), forced, prefix=prefix)

    def _batches(self, jobs: Sequence[_Job]) -> list[list[_Job]]:
        """Group jobs of similar length, so that little is padding and no batch is too large."""
        batches: list[list[_Job]] = []
        largest = 0
        for job in sorted(jobs, key=lambda job: (job.prefix is None, -job.cost)):
            full = not batches or len(batches[-1]) >= self.max_batch_size
            full = full or (batches[-1][-1].prefix is None) != (job.prefix is None)
            if full or largest * (len(batches[-1]) + 1) > self.max_batch_tokens or job.cost < largest / 2:
                batches.append([])
                largest = job.cost
            batches[-1].append(job)
        return batches

    def _run(self, batch: list[_Job], start: float, *, may_forget: bool = True) -> list[Generation]:
        """Run a batch; if that fails, each half alone, down to single requests.

        Where memory is out, what is remembered of other episodes goes first.
        """
        try:
            with torch.inference_mode():
                self.num_tokens_read += _decode(batch, self.loaded, self.banned_V, start, self.memory)
            return [_generation(job, self.loaded) for job in batch]
        except ConfigError:
            raise
        except Exception as error:  # the machine's fault becomes a value
            reason = f"{type(error).__name__}: {error}"
            no_memory = isinstance(error, (torch.OutOfMemoryError, MemoryError))
        again = no_memory and may_forget and len(self.memory) > 0
        if no_memory:
            self.memory.forget()
        for job in batch:
            job.ids, job.logprobs, job.finish, job.prefix = [], [], None, None
        if self.loaded.device.type == "cuda":
            torch.cuda.empty_cache()
        if again:
            return self._run(batch, start, may_forget=False)
        if len(batch) == 1:
            seconds = time.perf_counter() - start
            return [Generation(text="", finish="error", error=reason, seconds=seconds)]
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


def _num_known(episode: TokenEpisode, request: GenerationRequest) -> int:
    """Return how many tokens of the episode the model had been shown when its last turn ended; 0 = no turn yet."""
    sampled = request.generations[-1].token_ids if request.generations else None
    if not sampled:
        return 0
    count = found = 0
    for segment in episode.segments:
        count += len(segment.token_ids)
        if segment.token_ids == sampled:
            found = count - 1  # the last sampled token was never fed
    return found


def _decode(
    jobs: Sequence[_Job], loaded: LoadedModel, banned_V: torch.Tensor, start: float, memory: PrefixMemory
) -> int:
    """Fill ``ids``, ``logprobs``, ``finish`` and ``seconds`` of the jobs; return the prompt tokens computed."""
    model, device = loaded.model, loaded.device
    decoder = Decoder(model) if can_decode(model) else None
    state = read([job.episode for job in jobs], [job.prefix for job in jobs], loaded)
    uniform = [_uniform(job.request) for job in jobs]
    active = list(range(len(jobs)))
    for step in range(max(job.request.sampling.max_new_tokens for job in jobs)):
        samplings = [jobs[index].request.sampling for index in active]
        draws_B = torch.stack([uniform[index][min(step, len(uniform[index]) - 1)] for index in active])
        forced = [jobs[index].forced[step] if step < len(jobs[index].forced) else None for index in active]
        ids_B, logprobs_B = choose(state.logits_BV, banned_V, samplings, draws_B, forced)
        for index, token, logprob in zip(active, ids_B.tolist(), logprobs_B.tolist(), strict=True):
            _append(jobs[index], token, logprob, loaded, start)
        if memory.max_bytes:
            for row, index in enumerate(active):
                if jobs[index].finish is not None:
                    memory.keep(state.prefix(row, jobs[index].episode, jobs[index].ids))
        alive = [row for row, index in enumerate(active) if jobs[index].finish is None]
        if not alive:
            break
        if len(alive) < len(active):
            state.select(alive)
            ids_B = ids_B[torch.tensor(alive, device=device)]
            active = [active[row] for row in alive]
        state.mask_BT = torch.nn.functional.pad(state.mask_BT, (0, 1), value=1)
        mask_BT = state.mask_BT if state.padded else None
        if decoder is not None:
            state.logits_BV = decoder.step(ids_B, state.next_position_B, state.cache, mask_BT, state.shared)
        else:
            out = model(
                input_ids=ids_B[:, None], past_key_values=state.cache, attention_mask=mask_BT,
                position_ids=state.next_position_B[None, :, None].expand(3, -1, -1), use_cache=True,
            )  # fmt: skip
            state.logits_BV = out.logits[:, -1]
        state.next_position_B = state.next_position_B + 1
    return state.num_read


def _uniform(request: GenerationRequest) -> torch.Tensor:
    """Return the request's own random numbers, one per step, float64."""
    generator = torch.Generator().manual_seed(request.seed & (2**63 - 1))
    count = max(request.sampling.max_new_tokens, 1)
    return torch.rand(count, dtype=torch.float64, generator=generator)


def _append(job: _Job, token: int, logprob: float, loaded: LoadedModel, start: float) -> None:
    sampling = job.request.sampling
    job.ids.append(token)
    job.logprobs.append(min(logprob, 0.0))
    began = len(job.ids) <= len(job.forced)
    if not began and (token in loaded.layout.eos_token_ids or _stopped(job, loaded)):
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
