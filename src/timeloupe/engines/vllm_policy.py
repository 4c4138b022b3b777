"""Roll-outs in vLLM, with the weights that the trainer has at the time.

The same in and out as ``policy.local``: requests become the very token ids that an update learns from, and sampled ids
come back with their log-probabilities; no text is ever encoded again. What differs is listed in docs/training.md.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from timeloupe.engines.vllm_engine import Asked, Told, VllmEngine
from timeloupe.engines.vllm_prompt import EnginePrompt, engine_prompt, form_of
from timeloupe.errors import ConfigError, TimeloupeError, boundary
from timeloupe.model.episode import TokenEpisode
from timeloupe.model.expand import expand, expanded_length
from timeloupe.model.load import LoadedModel
from timeloupe.model.render import render
from timeloupe.policy.base import GenerationRequest
from timeloupe.policy.local import banned_tokens
from timeloupe.train.rollout_part import RolloutPart
from timeloupe.trajectory import Generation, Usage

LIKELIEST = 20
"""Next tokens of the probe that are compared: the log-probability of a single sure one hardly depends on weights."""

FIRST_LIMIT = {"float32": 1e-2, "bfloat16": 1.0}
LEAST_LIMIT = {"float32": 1e-3, "bfloat16": 0.1}
"""Nats that a log-probability of the probe may differ: in a fresh engine, and later at least; see ``_check``."""


@dataclass
class _Job:
    """One request on its way."""

    request: GenerationRequest
    episode: TokenEpisode
    prompt: EnginePrompt
    begun: tuple[int, ...]
    num_prompt_tokens: int

    @property
    def cost(self) -> int:
        """Positions that it can fill."""
        return self.num_prompt_tokens + self.request.sampling.max_new_tokens


class VllmPolicy:
    """Plays with vLLM in this process.

    Before it plays it looks whether the weights of ``loaded`` have changed since the last time. If so, vLLM reads them,
    its caches are emptied, and a probe is asked: a prompt with frames from the roll-outs, whose likeliest next tokens
    must have the same log-probabilities in vLLM as in the trainer.

    Args:
        loaded: The model that is trained.
        part: Settings.

    Raises:
        MissingError: vLLM is not installed.
        ConfigError: vLLM cannot play this model, or there are several processes.
    """

    def __init__(self, loaded: LoadedModel, part: RolloutPart) -> None:
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise boundary(
                "processes of a training with roll-outs in vLLM", os.environ["WORLD_SIZE"], "1",
                "start one process, or set rollout.backend to 'local'",
            )  # fmt: skip
        form_of(loaded.layout)
        self.loaded = loaded
        self.engine = VllmEngine(loaded, part, banned_tokens(loaded).nonzero().flatten().tolist())
        self._version = loaded.weights_version
        self._probe: tuple[TokenEpisode, EnginePrompt] | None = None
        self._probe_tokens = 0
        self._largest_gap = 0.0
        self._failed = False
        self._figures: dict[str, float] = {}

    @property
    def name(self) -> str:
        """Short name for records."""
        return f"vllm:{self.loaded.name}"

    def take_figures(self) -> dict[str, float]:
        """Return the figures since the last call.

        ``reload_seconds`` and ``probe_seconds`` (a part of the roll-outs' time), ``probe_gap`` (largest difference of a
        log-probability of the probe, nats), ``probe_moved`` (how far the last updates have moved them).
        """
        figures, self._figures = self._figures, {}
        return figures

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Return one generation per request, in order; a machine's fault is ``finish="error"``.

        Raises:
            ConfigError: A request is wrong in itself; no request has ever fitted into ``rollout.max_model_len``; or
                vLLM failed twice in a row.
            TimeloupeError: vLLM did not take the weights.
        """
        start = time.perf_counter()
        if not requests:
            return []
        self._catch_up()
        jobs = [self._job(request) for request in requests]
        limit = self.engine.max_model_len
        fitting = [job for job in jobs if job.cost <= limit]
        if not fitting and self._probe is None:
            least = min(job.cost for job in jobs)
            raise boundary(
                "rollout.max_model_len", limit, f"at least the {least} tokens of the shortest prompt and its reply",
                "raise it, or show fewer frames",
            )  # fmt: skip
        answers: dict[int, Generation] = {}
        if fitting:
            self._choose_probe(fitting)
            answers = dict(zip(map(id, fitting), self._ask(fitting, start), strict=True))
        too_long = f"longer than rollout.max_model_len ({limit} tokens)"
        return [
            answers.get(id(job))
            or Generation(text="", finish="error", error=f"{job.cost} tokens, {too_long}")
            for job in jobs
        ]

    def _job(self, request: GenerationRequest) -> _Job:
        loaded = self.loaded
        episode = render(
            request.messages, request.clips, loaded.chat, loaded.layout, generations=request.generations
        )
        text = request.reply_prefix.removeprefix(loaded.chat.reply_prefix)
        begun = tuple(loaded.layout.encode(text)) if text else ()
        return _Job(
            request,
            episode,
            engine_prompt(episode, loaded.layout),
            begun,
            expanded_length(episode, loaded.layout),
        )

    def _ask(self, jobs: Sequence[_Job], start: float) -> list[Generation]:
        asked = [Asked(job.prompt, job.request.sampling, job.request.seed, job.begun) for job in jobs]
        try:
            told = self.engine.generate(asked)
        except ConfigError:
            raise
        except Exception as error:  # the machine's fault becomes a value
            reason = f"vLLM: {type(error).__name__}: {error}"
            if self._failed:
                raise ConfigError(f"vLLM failed twice in a row; {reason}") from error
            self._failed = True
            seconds = time.perf_counter() - start
            return [Generation(text="", finish="error", error=reason, seconds=seconds) for _ in jobs]
        self._failed = False
        seconds = time.perf_counter() - start
        return [self._generation(job, one, seconds) for job, one in zip(jobs, told, strict=True)]

    def _generation(self, job: _Job, told: Told, seconds: float) -> Generation:
        loaded = self.loaded
        if told.num_prompt_tokens != job.num_prompt_tokens:
            raise ConfigError(
                f"vLLM makes {told.num_prompt_tokens} tokens of a prompt that has {job.num_prompt_tokens} here: its "
                "processor resizes frames or lays them out in another way; set rollout.backend to 'local'"
            )
        ids = told.token_ids
        ended = ids and ids[-1] in loaded.layout.eos_token_ids
        return Generation(
            text=loaded.tokenizer.decode(ids[:-1] if ended else ids, skip_special_tokens=True),
            finish="stop" if told.stopped else "length",
            usage=Usage(prompt_tokens=job.num_prompt_tokens, completion_tokens=len(ids)),
            token_ids=ids, logprobs=told.logprobs, seconds=seconds,
        )  # fmt: skip

    def _catch_up(self) -> None:
        """Give vLLM the weights if they have changed."""
        version = self.loaded.weights_version
        if version == self._version:
            return
        before = {}
        if self._probe is not None:
            # Asked once more, so that its keys and values lie in the caches that must be emptied.
            before = self.engine.likeliest(self._probe[1], LIKELIEST)
        began = time.perf_counter()
        self.engine.reload()
        self._version = version
        self._figures["reload_seconds"] = time.perf_counter() - began
        if self._probe is not None:
            self._check(*self._probe, before)

    def _choose_probe(self, jobs: Sequence[_Job]) -> None:
        """Keep the longest prompt so far, with frames if there is one: vLLM remembers whole blocks of tokens only.

        The first one also shows that a fresh engine computes the trainer's model.
        """
        longest = max(jobs, key=lambda job: (bool(job.episode.clips), job.num_prompt_tokens))
        is_first = self._probe is None
        if is_first or longest.num_prompt_tokens > self._probe_tokens:
            self._probe, self._probe_tokens = (longest.episode, longest.prompt), longest.num_prompt_tokens
        if is_first:
            self._check(longest.episode, longest.prompt, {})

    def _check(self, episode: TokenEpisode, prompt: EnginePrompt, before: dict[int, float]) -> None:
        """Compare the probe in vLLM and in the trainer.

        What rounding makes of it is not known beforehand (on a GPU at bfloat16, some hundredths), so the limit is four
        times what was seen before, starting with a fresh engine that certainly has the trainer's weights.

        Raises:
            TimeloupeError: They differ by more.
        """
        began = time.perf_counter()
        engine, dtype = self.engine, self.engine.dtype
        theirs = engine.likeliest(prompt, LIKELIEST)
        ours = _next_log_probs(self.loaded, episode)
        gap = max(abs(value - float(ours[token])) for token, value in theirs.items())
        first = not self._largest_gap
        limit = FIRST_LIMIT[dtype] if first else max(LEAST_LIMIT[dtype], 4 * self._largest_gap)
        if not gap <= limit:
            cause = (
                "it computes another model: check the checkpoint's processor files"
                if first
                else "it did not take the new weights, or kept results of old ones: end this run and resume it, or set "
                "rollout.backend to 'local'"
            )
            raise TimeloupeError(
                f"vLLM and the trainer disagree about a probe by {gap:.3g} nats, got over the limit of {limit:.3g} at "
                f"{dtype}; {cause}"
            )
        self._largest_gap = max(self._largest_gap, gap, 1e-9)
        moved = [abs(value - before[token]) for token, value in theirs.items() if token in before]
        self._figures |= {"probe_gap": gap, "probe_seconds": time.perf_counter() - began}
        if moved:
            self._figures["probe_moved"] = max(moved)


def _next_log_probs(loaded: LoadedModel, episode: TokenEpisode) -> torch.Tensor:
    """Return the trainer's log-probabilities (V,) of the token after an episode, computed as in an update."""
    batch = expand([episode], loaded.layout).to(loaded.device)
    kind = loaded.device.type
    was_training = loaded.model.training
    loaded.model.eval()
    with torch.no_grad(), torch.autocast(kind, torch.bfloat16, enabled=kind == "cuda"):
        logits_V = loaded.model(**batch.model_inputs(), use_cache=False, logits_to_keep=1).logits[0, -1]
    loaded.model.train(was_training)
    return logits_V.float().log_softmax(-1).cpu()
