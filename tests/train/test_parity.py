"""What a roll-out recorded is what the trainer computes: the same ids, mask, positions and log-probabilities.

The models are random and tiny, in the published layouts of Qwen2.5-VL and Qwen3-VL. A random model never asks to look,
so the first two replies are FORCED, text by text, and cut behind the call; only the last reply is the model's own.
Forced tokens go through the policy's own decoding, one at a time with its cache, and are scored there like any other.
Videos, crops and their frames are real: an H.264 file, read by the reader, cut by the tool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.model.tiny import tiny_loaded
from timeloupe.cli.main import main
from timeloupe.environment.rollout import play
from timeloupe.environment.settings import EpisodeSettings
from timeloupe.model.expand import ModelBatch, expand
from timeloupe.model.forward import target_logprobs
from timeloupe.model.load import LoadedModel
from timeloupe.model.packing import pack
from timeloupe.policy.base import GenerationRequest
from timeloupe.policy.local import LocalPolicy
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.train.batch import token_episode
from timeloupe.train.logprobs import log_probs
from timeloupe.trajectory import Example, Generation, Trajectory, read_examples, read_trajectories, to_line
from timeloupe.video.cache import FrameCache

FAMILIES = ("qwen3_vl", "qwen2_5_vl")
BOUND = 1e-5
CALL = (
    '<think>Not seen yet.</think>\n<tool_call>{{"name":"get_video_clip_frame","arguments":'
    '[{{"start_time":{0},"end_time":{1}}}]}}</tool_call>'
)


class CallsTwice:
    """A local policy whose first two replies are calls; each roll-out looks somewhere else."""

    def __init__(self, loaded: LoadedModel) -> None:
        self.inner = LocalPolicy(loaded)
        self.name = self.inner.name

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        begun = []
        for request in requests:
            turn, start = len(request.generations), request.seed % 90
            text = "" if turn >= 2 else CALL.format(start, start + 5 + 7 * turn + request.seed % 4)
            length = len(self.inner.loaded.layout.encode(text)) or request.sampling.max_new_tokens
            sampling = replace(request.sampling, max_new_tokens=length)
            begun.append(replace(request, reply_prefix=text, sampling=sampling))
        return self.inner.generate(begun)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[Example]:
    """Questions about two H.264 files of three minutes."""
    folder = tmp_path_factory.mktemp("world")
    assert main(["world", "make", str(folder), "--seed", "5", "--videos", "2", "--minutes", "3"]) == 0
    return list(read_examples(folder / "examples.jsonl"))


def episodes(
    loaded: LoadedModel, examples: Sequence[Example], group: int, cache: FrameCache
) -> list[Trajectory]:
    """Every example played ``group`` times."""
    side = loaded.layout.size_multiple
    settings = EpisodeSettings(
        skim_frames=7, crop_min_frames=2, crop_max_frames=5, frame_size_wh=(2 * side, side), size_multiple=side,
        temperature=1.0, max_new_tokens=24, video_deadline_seconds=None,
    )  # fmt: skip
    asked = [example for example in examples for _ in range(group)]
    return play(
        asked, CallsTwice(loaded), PROTOCOLS["videotemp"], settings, seed=3,
        rollout_index=[index % group for index in range(len(asked))], cache=cache,
    )  # fmt: skip


def batch_of(trajectories: Sequence[Trajectory], loaded: LoadedModel, cache: FrameCache) -> ModelBatch:
    """What the trainer makes of them."""
    return expand([token_episode(one, loaded, cache) for one in trajectories], loaded.layout)


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_equal_token_by_token_also_after_the_file(
    family: str, examples: list[Example], tmp_path: Path
) -> None:
    loaded, cache = tiny_loaded(family), FrameCache(1 << 26)
    played = episodes(loaded, examples, 3, cache)
    # The tool was really used: two crops each, at other times, of frames that the prompt did not show.
    for one in played:
        assert len(one.turns) == 3 and len(one.crops) == 2, one.problem
        shown = [ref for turn in one.turns if turn.observation for ref in turn.observation.frame_refs]
        assert [ref.view for ref in shown] == ["crop", "crop"]
    assert len({turn.generation.text for one in played for turn in one.turns}) > 2 * len(played)
    assert all(CALL[:20] not in one.turns[2].generation.text for one in played)

    path = tmp_path / "trajectories.jsonl"
    path.write_text("".join(to_line(one) + "\n" for one in played), encoding="utf-8")
    read = list(read_trajectories(path))
    batch, again = batch_of(played, loaded, cache), batch_of(read, loaded, FrameCache(1 << 26))
    for name in ("input_ids_BT", "attention_mask_BT", "loss_mask_BT", "position_ids_3BT", "logprobs_BT"):
        assert torch.equal(getattr(batch, name), getattr(again, name)), name
    assert torch.equal(batch.pixel_values_videos, again.pixel_values_videos)  # type: ignore[arg-type]

    sampled = [turn.generation for one in played for turn in one.turns]
    targets = batch.input_ids_BT[batch.loss_mask_BT].tolist()
    assert targets == [token for one in sampled for token in one.token_ids or ()]
    recorded = torch.tensor([value for one in sampled for value in one.logprobs or ()])
    with torch.no_grad():
        padded = target_logprobs(loaded.model, again)[batch.loss_mask_BT]
        packed = pack([token_episode(one, loaded, cache) for one in read], loaded.layout)
        updates = log_probs(loaded.model, packed)[0][packed.episodes.loss_mask_BT]
    assert recorded.std() > 0.5  # far from the uniform distribution, where anything would agree
    assert (padded - recorded).abs().max() <= BOUND
    assert (updates - recorded).abs().max() <= BOUND


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_is_fed_the_ids_and_positions_of_the_trainer(family: str, examples: list[Example]) -> None:
    loaded, cache = tiny_loaded(family), FrameCache(1 << 26)
    fed_ids: list[torch.Tensor] = []
    fed_positions: list[torch.Tensor] = []

    def record(module: Any, args: Any, inputs: dict[str, Any]) -> None:
        fed_ids.append(inputs["input_ids"])
        fed_positions.append(inputs["position_ids"])

    hook = loaded.model.register_forward_pre_hook(record, with_kwargs=True)
    try:
        (one,) = episodes(loaded, examples[:1], 1, cache)
    finally:
        hook.remove()
    batch = batch_of([one], loaded, cache)
    # The very last sampled token, and what the chat format puts behind it, is never fed.
    ids_1T, positions_31T = torch.cat(fed_ids, 1), torch.cat(fed_positions, 2)
    length = ids_1T.shape[1]
    last = int(batch.loss_mask_BT[0].nonzero().max())
    assert len(one.crops) == 2 and length == last
    assert torch.equal(ids_1T, batch.input_ids_BT[:, :length])
    assert torch.equal(positions_31T, batch.position_ids_3BT[:, :, :length])
