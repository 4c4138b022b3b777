"""Open-o3's rows for the small model: made from the world, recorded from the teacher, and taught."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from timeloupe.config import load_recipe
from timeloupe.environment.rollout import play
from timeloupe.environment.settings import make_settings
from timeloupe.environment.teacher_policy import TeacherPolicy
from timeloupe.model.expand import expand
from timeloupe.model.layout import read_episode_defaults
from timeloupe.model.load import LoadedModel, load_model
from timeloupe.policy.small import SMALL_CHECKPOINT
from timeloupe.prompt.evidence import parse_claims
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.reward.base import Context
from timeloupe.reward.compose import load_reward
from timeloupe.train.alignment import alignment_batch, alignment_loss
from timeloupe.train.new_tokens import EVIDENCE_TOKENS, add_tokens
from timeloupe.train.recipe import ModelPart, SftRecipe
from timeloupe.train.rows import TrainRow, to_episode
from timeloupe.train.sft import train_sft
from timeloupe.train.supervision import read_vocabulary, readouts
from timeloupe.train.world_rows import RowMix, WorldRows
from timeloupe.trajectory import StopReason, to_line
from timeloupe.world.encode import make_videos
from timeloupe.world.script import SHAPES, ScriptSettings
from timeloupe.world.teacher import RELEVANCE_LABELS, whole_seconds

ROOT = Path(__file__).resolve().parents[2]
SHORT = ScriptSettings(min_seconds=40, max_seconds=60, num_scenes=2)
STEP = {
    "name": "evidence", "steps": 1, "batch": 2, "lr": 0.01, "optimizer": "adamw", "mask": "all_turns",
}  # fmt: skip


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """The embedded model with the tokens of evidence."""
    return load_model(add_tokens(SMALL_CHECKPOINT, tmp_path_factory.mktemp("grown") / "model"), device="cpu")


@pytest.fixture(scope="module")
def rows(loaded: LoadedModel) -> list[TrainRow]:
    """A few rows."""
    settings = make_settings(loaded.layout.details["episode"])
    return WorldRows(6, RowMix(evidence=1.0), settings, script_settings=SHORT).pool(0, 12)


def test_every_claim_of_a_row_is_of_a_frame_whose_labels_agree(rows: list[TrainRow]) -> None:
    for row in rows:
        (frames,) = (message.frame_refs[0] for message in row.messages if message.frame_refs)
        claims = parse_claims(row.messages[-1].text)
        assert row.labels is not None and row.corners is not None
        place_of = {whole_seconds(time): place for place, time in enumerate(frames.at_seconds)}
        for claim in claims:
            place = place_of[int(claim.at_seconds or -1)]
            assert row.labels[0][place] == "event_first" or row.labels[0][place].isdigit()
            assert row.corners[0][place] == claim.boxes[0][:2]
        with_box = [corner is not None for corner in row.corners[0]]
        shown = [label.startswith("event") and label != "event_after" for label in row.labels[0]]
        assert with_box == [here or label.isdigit() for here, label in zip(shown, row.labels[0], strict=True)]
        assert claims and set(row.labels[0]) <= {*RELEVANCE_LABELS, *"0123456789"}
    assert len({row.messages[-2].text for row in rows}) > 4


def test_what_is_read_out_of_a_frame_is_the_box_that_is_claimed(
    loaded: LoadedModel, rows: list[TrainRow]
) -> None:
    batch = expand([to_episode(row, loaded, "all_turns") for row in rows], loaded.layout)
    labels = [clip for row in rows for clip in row.labels or ()]
    seconds = [[0] * len(clip) for clip in labels]
    corners = [clip for row in rows for clip in row.corners or ()]
    vocabulary = read_vocabulary(loaded.tokenizer)
    found = readouts(batch, labels, seconds, vocabulary, corners)
    known = [corner for clip in corners for corner in clip if corner is not None]
    for name, index in (("box_left", 0), ("box_top", 1)):
        written = loaded.tokenizer.convert_ids_to_tokens(
            found[name].candidates_C[found[name].targets_N].tolist()
        )
        assert [int(token) for token in written] == [corner[index] for corner in known]
        assert len(known) == len(found[name].columns_N) < len(found["relevance"].columns_N)
    assert "box_left" not in readouts(batch, labels, seconds, vocabulary)


def test_shares_of_evidence_leave_other_rows_as_they_were(loaded: LoadedModel) -> None:
    settings = make_settings(loaded.layout.details["episode"])
    mixed = WorldRows(6, RowMix(evidence=0.5), settings, script_settings=SHORT).pool(1, 40)
    claiming = ["<obj>" in row.messages[-1].text for row in mixed]
    assert any(claiming) and not all(claiming)
    assert all((row.corners is None) != claims for row, claims in zip(mixed, claiming, strict=True))


def test_what_the_teacher_played_on_files_can_be_taught(loaded: LoadedModel, tmp_path: Path) -> None:
    (video,) = make_videos(
        tmp_path, seed=6, num_videos=1, settings=SHORT, tasks=["what_when_where"], per_task=4
    )
    examples = [row.model_copy(update={"video": str(video.path)}) for row in video.examples]
    policy = TeacherPolicy({row.id: (video.script, row) for row in examples})
    settings = make_settings(read_episode_defaults(SMALL_CHECKPOINT)[0], {"tools": False})
    played = play(examples, policy, PROTOCOLS["small"], settings, seed=0)
    assert all(one.stop is StopReason.ANSWERED and one.answer and one.answer.boxes for one in played)
    scored = [load_reward("openo3_paper").score(one, Context()).parts for one in played]
    assert all((parts["format"], parts["answer_tiou"]) == (1, 0) for parts in scored)
    path = tmp_path / "played.jsonl"
    path.write_text("".join(to_line(one) + "\n" for one in played), encoding="utf-8")
    values: dict[str, Any] = {
        "model": {"checkpoint": str(SMALL_CHECKPOINT), "device": "cpu", "new_tokens": EVIDENCE_TOKENS},
        "stages": [STEP | {"kind": "trajectories", "path": str(path)}],
    }
    model = train_sft(SftRecipe.model_validate(values), tmp_path / "run")
    taught = load_model(model, device="cpu")
    assert len(taught.layout.encode("<obj>circle</obj><box>[20, 20, 580, 580]</box>at<t>12</t>s")) == 13
    before, after = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "run" / "initial", model)
    )
    assert any(not before[name].equal(after[name]) for name in before)


def test_the_recipe_loads_and_new_tokens_need_a_tokenizer() -> None:
    recipe = load_recipe(ROOT / "recipes" / "sft" / "openo3-small.toml", [], SftRecipe)
    assert recipe.model.new_tokens == EVIDENCE_TOKENS and not recipe.model.freeze_vision
    assert recipe.stages[0].kind == "alignment" and recipe.stages[0].boxes
    assert recipe.stages[1].kind == "world" and recipe.stages[1].mix.evidence == 1
    with pytest.raises(ValueError, match="new_tokens needs a checkpoint"):
        ModelPart.model_validate({"from_scratch": {}, "new_tokens": ["<obj>"]})


def test_alignment_asks_where_a_shape_is_only_where_there_is_one(loaded: LoadedModel) -> None:
    frames, facts = alignment_batch(4, 0, 24, 32)
    none = facts[:, 1] == len(SHAPES)
    assert none.any() and (facts[none, 3:] == -1).all()
    # A shape is half a frame wide and keeps within it: no left edge is beyond 0.42.
    assert (facts[~none, 3:] >= 1).all() and (facts[~none, 3:] <= 21).all()
    plain, names = alignment_loss(loaded, frames, facts)
    more, with_boxes = alignment_loss(loaded, frames, facts, boxes=True)
    assert set(with_boxes) - set(names) == {"box_left", "box_top"} and more > plain
    other = facts.copy()
    other[~none, 3] = 0
    assert alignment_loss(loaded, frames, other)[0] == plain  # not asked
    changed, shares = alignment_loss(loaded, frames, other, boxes=True)
    assert changed != more and shares["box_top"] == with_boxes["box_top"]
