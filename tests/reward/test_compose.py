"""Composites: what a TOML file may say, how parts are summed, and what makes a reward ``None``."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timeloupe.errors import ConfigError, MissingError
from timeloupe.prompt.parse import parse_reply
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.reward.base import Context
from timeloupe.reward.compose import Composite, PartUse, Reward, load_reward, preset_names
from timeloupe.reward.parts import Entry
from timeloupe.reward.scenes import prompt_of, sample_scene, seeded
from timeloupe.trajectory import Answer, Example, Generation, StopReason, Task, Trajectory, Turn

LOW, HIGH = -1.0, 2.0


def told(trajectory: Trajectory, context: Context, *, key: str = "a", add: float = 0.0) -> float | None:
    """The number that the episode's settings hold under ``key``."""
    value = trajectory.settings.get(key)
    return None if value is None else value + add


def broken(trajectory: Trajectory, context: Context) -> float | None:
    return math.nan


REGISTRY: dict[str, Entry] = {
    "told": (told, (LOW, HIGH)),
    "told_too": (lambda trajectory, context: told(trajectory, context, key="b"), (LOW, HIGH)),
    "broken": (broken, (0.0, 1.0)),
}


def episode(task: Task = "grounding", stop: StopReason = StopReason.ANSWERED, **told: float) -> Trajectory:
    turn = Turn(generation=Generation(text="<answer>x</answer>"), answer=Answer(text="x"))
    example = Example(id="1", video="v.mp4", question="q", task=task)
    return Trajectory(
        example=example, policy="p", protocol="videotemp", turns=(turn,), stop=stop, settings=told
    )


def write(folder: Path, parts: str, head: str = "") -> Path:
    path = folder / "mine.toml"
    head = f'title = "t"\nsource = "s"\nprotocol = "videotemp"\ntools = true\ntasks = ["grounding", "open"]\n{head}\n'
    path.write_text(head + parts, encoding="utf-8")
    return path


def load(folder: Path, parts: str, head: str = "") -> Reward:
    return load_reward(write(folder, parts, head), REGISTRY)


def test_weights_constants_tasks_and_phases(tmp_path: Path) -> None:
    reward = load(
        tmp_path,
        """
        [[parts]]
        part = "told"
        weight = 2.0
        constants = { add = 0.25 }
        [[parts]]
        part = "told"
        name = "late"
        from_progress = 0.5
        [[parts]]
        part = "told_too"
        tasks = ["open"]
        """,
    )
    early = reward.score(episode(a=1.0, b=0.5), Context(progress=0.49))
    assert early.parts == {"reward": 2.5, "told": 1.25} and not early.reasons
    assert reward.score(episode(a=1.0, b=0.5), Context(progress=0.5)).parts["reward"] == 3.5
    assert reward.score(episode(a=1.0, b=0.5), Context(progress=1.0)).parts["late"] == 1.0
    assert reward.score(episode("open", a=1.0, b=0.5), Context()).parts == {
        "reward": 3.0, "told": 1.25, "told_too": 0.5,
    }  # fmt: skip
    assert reward.composite.phases == ((0.0, 0.5), (0.5, 1.0))


def test_a_gate_opens_at_its_bound_and_a_factor_multiplies(tmp_path: Path) -> None:
    gated = load(
        tmp_path,
        """
        [[parts]]
        part = "told"
        weight = 0.0
        [[parts]]
        part = "told_too"
        gate = { part = "told", at_least = 0.7 }
        """,
    )
    assert gated.score(episode(a=0.7, b=0.5), Context()).parts == {
        "reward": 0.5,
        "told": 0.7,
        "told_too": 0.5,
    }
    closed = gated.score(episode(a=0.69, b=0.5), Context())
    assert closed.parts == {"reward": 0.0, "told": 0.69, "told_too": 0.5}
    # What is not paid need not be scored either.
    assert gated.score(episode(a=0.69), Context()).parts == {"reward": 0.0, "told": 0.69, "told_too": None}
    assert gated.score(episode(b=0.5), Context()).parts["reward"] is None
    scaled = load(
        tmp_path,
        '[[parts]]\npart = "told"\nweight = 0\n[[parts]]\npart = "told_too"\ntimes = "told"\nweight = 3\n',
    )
    assert scaled.score(episode(a=-0.5, b=0.5), Context()).parts["reward"] == -0.75
    assert scaled.bounds("open", 0.0) == (3 * LOW * HIGH, 3 * HIGH * HIGH)


def test_what_cannot_be_scored_is_none_with_a_reason_and_never_zero(tmp_path: Path) -> None:
    reward = load(tmp_path, '[[parts]]\npart = "told"\n[[parts]]\npart = "told_too"\noptional = true\n')
    whole = reward.score(episode(a=1.0), Context())
    assert whole.parts == {"reward": 1.0, "told": 1.0, "told_too": None}
    assert set(whole.reasons) == {"told_too"} and "true segments" in whole.reasons["told_too"]
    lost = reward.score(episode(b=1.0), Context())
    assert lost.parts["reward"] is None and lost.reasons["reward"].startswith("unscored: told;")
    machine = reward.score(episode(stop=StopReason.INFRASTRUCTURE, a=1.0, b=1.0), Context())
    assert machine.parts == {"reward": None} and machine.reasons["reward"].startswith("infrastructure")
    alien = reward.score(episode("multiple_choice", a=1.0), Context())
    assert alien.parts == {"reward": None} and "multiple_choice" in alien.reasons["reward"]


def test_clip(tmp_path: Path) -> None:
    reward = load(tmp_path, '[[parts]]\npart = "told"\nweight = 9\n', head="clip = [-2.0, 3.0]")
    totals = [reward.score(episode(a=value), Context()).parts["reward"] for value in (-1.0, 0.25, 2.0)]
    assert totals == [-2.0, 2.25, 3.0]
    assert reward.bounds("grounding", 0.0) == (-2.0, 3.0)


@pytest.mark.parametrize(
    ("parts", "head", "said"),
    [
        ('[[parts]]\npart = "tould"\n', "", "part, got 'tould', allowed: broken, told, told_too"),
        ('[[parts]]\npart = "told"\nwait = 2\n', "", "unknown key 'parts.0.wait' (did you mean 'weight'?)"),
        ('[[parts]]\npart = "told"\nconstants = { ad = 2 }\n', "", "got 'ad', allowed: key, add"),
        ('[[parts]]\npart = "told"\nconstants = { add = "x" }\n', "", "constant 'add' of part 'told'"),
        ('[[parts]]\npart = "told"\nconstants = { add = "1.5" }\n', "", "constant 'add' of part 'told'"),
        ('[[parts]]\npart = "told"\nweight = 1e308\n', "", "less than or equal to 1000000"),
        ('[[parts]]\npart = "told"\nconstants = { add = inf }\n', "", "constant 'add' of part 'told'"),
        ('[[parts]]\npart = "told"\nweight = nan\n', "", "finite"),
        ('[[parts]]\npart = "told"\n[[parts]]\npart = "told"\n', "", "names of their own"),
        ('[[parts]]\npart = "told"\nname = "reward"\n', "", "names of their own"),
        ('[[parts]]\npart = "told"\ntasks = ["multiple_choice"]\n', "", "tasks of part 'told'"),
        ('[[parts]]\npart = "told"\ntasks = ["open"]\n', "", "no part is paid for grounding"),
        ('[[parts]]\npart = "told"\nweight = 0\n', "", "no part is paid for grounding"),
        ('[[parts]]\npart = "told"\nfrom_progress = 0.2\n', "", "at progress 0"),
        ('[[parts]]\npart = "told"\nfrom_progress = 0.2\nto_progress = 0.2\n', "", "from_progress < to_progress"),
        ('[[parts]]\npart = "told"\ngate = { part = "b", at_least = 1 }\n', "", "depends on, got 'b'"),
        ('[[parts]]\npart = "told"\ntimes = "told"\n', "", "depends on, got 'told'"),
        ('[[parts]]\npart = "told"\n', "clip = [1.0, 1.0]", "clip"),
        ('[[parts]]\npart = "told"\n', 'weights = "x"', "unknown key 'weights'"),
        ("parts = []", "", "at least 1"),
        ('[[parts]]\npart = "told"\nweight = \n', "", "not valid TOML"),
    ],
)  # fmt: skip
def test_wrong_files_are_refused_with_what_is_allowed(
    tmp_path: Path, parts: str, head: str, said: str
) -> None:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, parts, head)
    assert said in str(error.value), str(error.value)


@pytest.mark.parametrize(
    ("part", "constants"),
    [
        ("videotemp.accuracy", "low = 0.9, high = 0.1"),
        ("videotemp.tool_iou", "threshold = 5"),
        ("videotemp.tool_iou", 'penalty = 2, grounding = "none"'),
        ("videotemp.tool_iou", 'high = 1.5, grounding = "none"'),
        ("videotemp.tool_iou", "no_call_penalty = -1"),
        ("museg.format_with_timestamp", "unnamed = 2"),
        ("museg.format_by_phase", "unreadable = -0.1"),
        ("taro.tiou", "lowest = -2"),
        ("taro.vtg_score", "bonus = 3"),
        ("openo3.thought_point", "first_sigma = 0"),
        ("openo3.thought_spatial", "tau = -1"),
    ],
)
def test_constants_out_of_range_are_refused_when_the_file_is_read(
    tmp_path: Path, part: str, constants: str
) -> None:
    path = write(tmp_path, f'[[parts]]\npart = "{part}"\nconstants = {{ {constants} }}\n')
    with pytest.raises(ConfigError, match=rf"mine.toml: part '{part}': .*got"):
        load_reward(path)


def test_a_dependence_must_hold_in_every_task_and_phase(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="depends on"):
        load(
            tmp_path,
            '[[parts]]\npart = "told"\ntasks = ["open"]\n[[parts]]\npart = "told_too"\ntimes = "told"\n',
        )


def test_unknown_names_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="reward, got 'nonsense', allowed"):
        load_reward("nonsense")
    with pytest.raises(MissingError):
        load_reward(tmp_path / "none.toml")


def test_a_part_that_breaks_its_contract_is_a_fault_of_the_program(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="finite"):
        load(tmp_path, '[[parts]]\npart = "broken"\n').score(episode(), Context())
    with pytest.raises(ValueError, match="progress"):
        load(tmp_path, '[[parts]]\npart = "told"\n').score(episode(), Context(progress=1.5))


NUMBERS = st.floats(LOW, HIGH)


@st.composite
def composites(draw: st.DrawFn) -> Composite:
    """Any composite of two parts that is allowed."""
    uses = [PartUse(part="told", weight=draw(st.floats(-3, 3)), optional=draw(st.booleans()))]
    second: dict[str, object] = {
        "part": "told_too",
        "weight": draw(st.floats(-3, 3)),
        "optional": draw(st.booleans()),
    }
    if draw(st.booleans()):
        second["gate"] = {"part": "told", "at_least": draw(NUMBERS)}
    if draw(st.booleans()):
        second["times"] = "told"
    second["from_progress"] = draw(st.floats(0, 0.9))
    uses.append(PartUse.model_validate(second))
    clip = draw(st.none() | st.just((-1.5, 1.0)))
    return Composite(
        title="t", source="s", protocol="videotemp", tools=False, tasks=("open",), clip=clip, parts=tuple(uses)
    )  # fmt: skip


@given(composites(), st.none() | NUMBERS, st.none() | NUMBERS, st.floats(0, 1))
def test_a_total_is_none_or_within_the_computed_bounds(
    composite: Composite, one: float | None, two: float | None, progress: float
) -> None:
    reward = Reward("r", composite, REGISTRY)
    values = {name: value for name, value in (("a", one), ("b", two)) if value is not None}
    score = reward.score(episode("open", **values), Context(progress=progress))
    total = score.parts["reward"]
    low, high = reward.bounds("open", progress)
    assert total is None or low - 1e-9 <= total <= high + 1e-9
    assert {name for name, value in score.parts.items() if value is None} == set(score.reasons)
    if one is not None and two is not None:
        assert total is not None


HOSTILE = st.one_of(
    st.text(max_size=80),
    st.lists(
        st.sampled_from(
            [
                "<think>", "</think>", "<answer>", "</answer>", "<tool_call>", "</tool_call>", "<obj>cup</obj>", "<t>",
                "</t>s", "at", "<box>[1, 2, 3, 4]</box>", "<box>[1e400, 0, 2, 2]</box>", "10-20", "0-1e400", "nan-inf",
                " to ", "12.5s to 14s", "[10, 20]", "-5", "٣-٤", "9" * 400, "C", "Correct Option: C",
                '{"name":"get_video_clip_frame","arguments":[{"start_time":10,"end_time":1e999}]}', "\x00", " ",
            ]
        ),
        max_size=14,
    ).map("".join),
)  # fmt: skip


@given(
    st.sampled_from(preset_names()), st.lists(HOSTILE, min_size=1, max_size=3), st.floats(0, 1), st.booleans()
)
def test_presets_are_finite_and_within_their_bounds_on_hostile_replies(
    name: str, replies: list[str], progress: float, cut: bool
) -> None:
    """Whatever a model writes, the reward is a finite number within its bounds; its faults are never unscored."""
    reward = load_reward(name)
    protocol = PROTOCOLS[reward.composite.protocol]
    for task in reward.composite.tasks:
        scene = sample_scene(task, seeded(task), task)
        example = scene.example
        turns: list[Turn] = []
        for text in replies:
            parsed = parse_reply(text, protocol, num_options=len(example.options), closed=cut)
            generation = Generation(text=text, finish="length" if cut else "stop")
            turns.append(
                Turn(
                    generation=generation, thought=parsed.thought, call=parsed.call, answer=parsed.answer,
                    problem=parsed.problem,
                )
            )  # fmt: skip
        stop = StopReason.ANSWERED if turns[-1].answer is not None else StopReason.FORMAT
        prompt = prompt_of(scene, protocol, tools=reward.composite.tools)
        trajectory = Trajectory(
            example=example, policy="p", protocol=protocol.name, turns=tuple(turns), stop=stop, prompt=prompt
        )
        context = Context(progress=progress, log_prob_drop=0.2, log_prob_drop_threshold=0.1)
        total = reward.score(trajectory, context).parts["reward"]
        low, high = reward.bounds(task, progress)
        assert total is not None and low - 1e-9 <= total <= high + 1e-9


def test_presets_say_where_they_come_from_and_bound_their_totals() -> None:
    for name in preset_names():
        reward = load_reward(name)
        assert len(reward.composite.source) > 20 and len(reward.composite.title) > 20
        for task in reward.composite.tasks:
            for start, _ in reward.composite.phases:
                low, high = reward.bounds(task, start)
                assert math.isfinite(low) and math.isfinite(high) and low < high
