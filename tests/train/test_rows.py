"""Training rows: the same chat that the agent will have, and targets that say what the frames show."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.train.tiny import SIZES
from timeloupe.environment.rollout import play
from timeloupe.environment.settings import make_settings
from timeloupe.environment.teacher_policy import TeacherPolicy
from timeloupe.errors import ConfigError
from timeloupe.model.expand import expand
from timeloupe.model.load import LoadedModel, load_model
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.train.from_scratch import SmallModelSize, build_checkpoint, build_tokenizer
from timeloupe.train.rows import to_episode, trajectory_row
from timeloupe.train.supervision import read_vocabulary, readouts
from timeloupe.train.world_rows import RowMix, WorldRows
from timeloupe.video.reader import VideoReader
from timeloupe.world.encode import make_videos
from timeloupe.world.script import ScriptSettings
from timeloupe.world.teacher import question_of, whole_seconds

SHORT = ScriptSettings(60, 75)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = tmp_path_factory.mktemp("small")
    sizes = {key: value for key, value in SIZES.items() if not key.endswith("_frames")}
    build_checkpoint(folder, size=SmallModelSize(**sizes), skim_frames=8, crop_frames=4)
    return load_model(folder, device="cpu")


@pytest.mark.parametrize(
    "text", ["[68, 105]", "héllo\n\n  wörld 2401 ", "", "<think>The digit is 7 (B).</think>", "\x00 \u200b"]
)
def test_the_tokenizer_gives_any_text_back(text: str) -> None:
    tokenizer = build_tokenizer()
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_a_second_is_one_token() -> None:
    tokenizer = build_tokenizer(2400)
    assert all(len(tokenizer.encode(str(second), add_special_tokens=False)) == 1 for second in range(2401))


def test_rows_are_those_that_the_agent_plays(loaded: LoadedModel, tmp_path: Path) -> None:
    settings = make_settings(loaded.layout.details["episode"])
    (video,) = make_videos(tmp_path, seed=2, num_videos=1, settings=SHORT, per_task=2)
    examples = [example.model_copy(update={"video": str(video.path)}) for example in video.examples]
    policy = TeacherPolicy({example.id: (video.script, example) for example in examples})
    played = play(examples, policy, PROTOCOLS["small"], settings, seed=0)
    rows = WorldRows(2, RowMix(), settings, script_settings=SHORT)
    for example, trajectory in zip(examples, played, strict=True):
        with VideoReader(video.path) as reader:
            row = rows.row(video.script, question_of(video.script, example), reader)
        again = trajectory_row(trajectory)
        assert [message.text for message in row.messages] == [message.text for message in again.messages]
        for one, other in zip(row.clips, again.clips, strict=True):
            assert np.array_equal(one, other)
        assert (
            to_episode(row, loaded, "all_turns").token_ids == to_episode(again, loaded, "all_turns").token_ids
        )


def test_pools_depend_on_their_index_only(loaded: LoadedModel) -> None:
    settings = make_settings(loaded.layout.details["episode"])
    mix = RowMix(direct=0.3, first_reply=0.2, recall=0.2, wrong_first=0.5)
    one = WorldRows(9, mix, settings, script_settings=SHORT)
    other = WorldRows(9, mix, settings, script_settings=SHORT)
    other.pool(0, 8)
    rows, same = one.pool(1, 8), other.pool(1, 8)
    assert [row.messages for row in rows] == [row.messages for row in same]
    assert all(
        np.array_equal(a, b)
        for r, s in zip(rows, same, strict=True)
        for a, b in zip(r.clips, s.clips, strict=True)
    )
    assert len({row.messages for row in rows}) > 4


def test_the_mask_decides_which_tokens_are_targets(loaded: LoadedModel) -> None:
    settings = make_settings(loaded.layout.details["episode"])
    rows = WorldRows(6, RowMix(wrong_first=1.0, direct=0.0), settings, script_settings=SHORT).pool(0, 30)
    row = next(row for row in rows if row.num_turns == 3)
    replies = [message.text for message in row.messages if message.role == "assistant"]
    for mask, kept in (("all_turns", replies), ("last_two_turns", replies[1:]), ("last_turn", replies[2:])):
        batch = expand([to_episode(row, loaded, mask)], loaded.layout)  # type: ignore[arg-type]
        targets = loaded.tokenizer.decode(batch.input_ids_BT[batch.loss_mask_BT])
        assert targets == "".join(reply + "<|im_end|>" for reply in kept)


def test_readouts_name_what_stands_in_the_prompt(loaded: LoadedModel) -> None:
    settings = make_settings(loaded.layout.details["episode"])
    rows = WorldRows(3, RowMix(direct=0.0), settings, script_settings=SHORT).pool(0, 8)
    batch = expand([to_episode(row, loaded, "all_turns") for row in rows], loaded.layout)
    vocabulary = read_vocabulary(loaded.tokenizer)
    labels = [clip for row in rows for clip in row.labels or ()]
    refs = [ref for row in rows for message in row.messages for ref in message.frame_refs]
    seconds = [[whole_seconds(second) for second in ref.at_seconds] for ref in refs]
    found = readouts(batch, labels, seconds, vocabulary)
    ids = batch.input_ids_BT
    own, previous, letters = found["own_time"], found["previous_time"], found["option_letter"]
    assert torch.equal(own.candidates_C[own.targets_N], ids[own.rows_N, own.columns_N - 1])
    assert torch.equal(
        previous.candidates_C[previous.targets_N], ids[previous.rows_N, previous.columns_N - 3]
    )
    for row, column, target in zip(letters.rows_N, letters.columns_N, letters.targets_N, strict=True):
        text = loaded.tokenizer.decode(ids[row, column - 2 : column + 1])
        assert text[0] == "ABCD"[target] and text[1:3] == ". " and text[3:].isdigit()
    assert len(found["relevance"].targets_N) == sum(len(clip) for clip in labels)


def test_evaluation_seeds_are_refused(loaded: LoadedModel) -> None:
    with pytest.raises(ConfigError, match="kept for evaluation"):
        WorldRows(1_000_000, RowMix(), make_settings(loaded.layout.details["episode"]))
