"""The checks' judgement, with a model that sees everything behind servers that bend what it is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from timeloupe.environment.settings import EpisodeSettings
from timeloupe.errors import MissingError
from timeloupe.eval.selfcheck import lines_of, selfcheck, summary_of
from timeloupe.eval.selfcheck_probe import Asked, Check, Seen, compare
from timeloupe.eval.selfcheck_server import check_room, check_seed, check_stop, grammar_of
from timeloupe.eval.selfcheck_times import PALETTE, base_clip, check_order, check_pictures, check_times, read
from timeloupe.policy.base import GenerationRequest, Policy
from timeloupe.prompt.protocol import PROTOCOLS
from timeloupe.trajectory import Example, Generation, Problem, StopReason, Trajectory, Turn, Usage
from timeloupe.video.clip_file import clock_of, ticks_of

SETTINGS = EpisodeSettings(frame_size_wh=(32, 32), skim_frames=16, crop_max_frames=12, max_new_tokens=64)

Bend = Callable[[list[float], np.ndarray], tuple[list[float], np.ndarray]]


@dataclass
class Behind:
    """A model that places events and names colours, behind a server with manners."""

    bend: Bend = lambda times, clip: (times, clip)
    usage: bool = True
    logprobs: bool = True
    prints: bool = True
    vague: bool = False
    seeds: Callable[[int, int], int] = lambda seed, count: seed
    stop: str = "keep"
    most: int = 10_000
    context: int = 10**9
    shown: list[Any] = field(default_factory=list)
    refuses: str | None = None
    lives: int = 10_000
    name: str = "behind"
    count: int = 0
    extra: dict[str, Any] = field(default_factory=dict)

    def make(self, *, logprobs: bool, extra_body: dict[str, Any] | None) -> Policy:
        return replace(self, logprobs=self.logprobs and logprobs, extra=extra_body or {})

    def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        return [self.one(request) for request in requests]

    def one(self, request: GenerationRequest) -> Generation:
        self.count += 1
        refs = [ref for message in request.messages for ref in message.frame_refs]
        num_frames = sum(len(ref.at_seconds) for ref in refs)
        if self.refuses or num_frames > self.most or self.count > self.lives:
            return Generation(text="", finish="error", error=self.refuses or "At most so many images")
        words = " ".join(message.text for message in request.messages)
        self.shown.append((refs, request.sampling))
        if (
            num_frames + request.sampling.max_new_tokens > self.context
        ):  # as vLLM has it: a reply needs its room, too
            return Generation(text="", finish="error", error="maximum context length")
        times, clip = self.bend(list(refs[0].at_seconds), request.clips[0]) if refs else ([], None)
        text = self.answer(words, times, clip)
        if request.sampling.temperature:
            random = np.random.default_rng(self.seeds(request.seed, self.count))
            text = " ".join(str(number) for number in random.integers(0, 1000, 10))
        for one in (*request.sampling.stop, *self.extra.get("stop", ())):
            if one in text and self.stop != "ignore":
                text = text[: text.index(one) + (len(one) if self.stop == "keep" else 0)]
        printed = "".join(f"{time:.1f}" for time in times) if self.prints else ""
        score = -0.1 - 1e-4 * (hash((printed, None if clip is None else clip.tobytes())) % 1000)
        tokens = len(words) + len(printed) + 4 * len(times)
        return Generation(
            text=text, token_ids=(1,) if self.logprobs else None, logprobs=(score,) if self.logprobs else None,
            usage=Usage(prompt_tokens=tokens) if self.usage else Usage(),
        )  # fmt: skip

    def answer(self, words: str, times: list[float], clip: np.ndarray | None) -> str:
        if self.vague or clip is None:
            return "<think>I see a video here.</think><answer>I cannot say.</answer>"
        if "colours" in words:
            seen = [
                min(PALETTE, key=lambda name: float(np.abs(np.array(PALETTE[name]) - one.mean((0, 1))).sum()))
                for one in clip
            ]
            return f"<think>I look.</think><answer>{', '.join(dict.fromkeys(seen))}</answer>"
        inside = [
            number for number, one in enumerate(clip) if any(np.array_equal(one, two) for two in event(words))
        ]
        if not inside:
            return "<think>I look.</think><answer>never</answer>"
        return f"<think>I look.</think><answer>[{times[inside[0]]:g}, {times[inside[-1]] + 0.1:g}]</answer>"


def event(words: str) -> np.ndarray:
    """The frames of the base clip that show what is asked for."""
    script, clip = BASE
    found = [
        one for one in script.events
        if f"the {one.shape} visible in the {script.scenes[one.scene_index].colour} " in words
    ]  # fmt: skip
    if not found:
        return clip.pixels[:0]
    inside = [
        found[0].segment.start_seconds <= time < found[0].segment.end_seconds for time in clip.at_seconds
    ]
    return clip.pixels[np.array(inside)]


class _Sized:
    def size_of(self, size_wh: tuple[int, int]) -> tuple[int, int]:
        return SETTINGS.frame_size_wh or size_wh


BASE = base_clip(_Sized())  # type: ignore[arg-type]


def ask(behind: Behind, send: Any = "video", **settings: Any) -> Asked:
    return Asked(
        behind.make, PROTOCOLS["videotemp"], SETTINGS.model_copy(update=settings), send=send, system_prompt=None
    )  # fmt: skip


def findings(checks: Sequence[Check]) -> set[str]:
    return {check.finding for check in checks if check.finding}


def of_input(behind: Behind, send: Any = "video") -> list[Check]:
    reading = read(ask(behind, send))
    return [check_pictures(reading), *check_times(reading), check_order(reading)]


def ticks(times: list[float]) -> list[float]:
    return [float(one) for one in ticks_of(times, clock_of(times))]


BENDS: dict[str, Bend] = {
    "clock_ignored": lambda times, clip: ([one / 24 for one in ticks(times)], clip),
    "indices_for_seconds": lambda times, clip: (ticks(times), clip),
    "times_dropped": lambda times, clip: ([0.0 * one for one in times], clip),
    "order_reversed": lambda times, clip: (times, clip[::-1]),
    "pictures_ignored": lambda times, clip: (times, clip * 0),
}


@pytest.mark.parametrize("bare", [False, True])
def test_a_faithful_server_is_found_faithful(bare: bool) -> None:
    for send in ("video", "images"):
        checks = of_input(Behind(usage=not bare, logprobs=not bare), send)
        assert not findings(checks) and {one.verdict for one in checks} <= {"ok", "note"}, checks


@pytest.mark.parametrize("name", BENDS)
def test_what_is_bent_is_named(name: str) -> None:
    assert findings(of_input(Behind(BENDS[name]))) == {name}


def test_a_place_in_the_request_for_a_time_is_named_in_images() -> None:
    numbers: Bend = lambda times, clip: ([float(number) for number in range(len(times))], clip)  # noqa: E731
    for usage in (True, False):
        assert findings(of_input(Behind(numbers, usage=usage), "images")) == {"indices_for_seconds"}


@pytest.mark.parametrize("name", [None, *BENDS])
def test_of_a_model_that_understands_nothing_no_fault_is_invented(name: str | None) -> None:
    """Without counts and log-probabilities nothing can be told; with them what changes nothing is still seen."""
    bend = BENDS[name] if name else Behind.bend
    checks = of_input(Behind(bend, vague=True, usage=False, logprobs=False))
    assert {one.verdict for one in checks} == {"cannot tell"} and not findings(checks)
    told = findings(of_input(Behind(bend, vague=True)))
    # Whose numbers of frames stand for seconds ignores the clock, too: without answers more cannot be known.
    assert told <= {name, "clock_ignored" if name == "indices_for_seconds" else name}
    assert told or name in (None, "order_reversed", "pictures_ignored")


def test_positions_without_printed_times_are_seen_by_log_probabilities_only() -> None:
    checks = of_input(Behind(usage=False, vague=True))
    assert not findings(checks)
    assert [one.verdict for one in checks if one.name in ("timestamps", "clock")] == ["ok", "ok"]


def test_a_shuffled_order_is_read_from_colours() -> None:
    halves: Bend = lambda times, clip: (times, np.roll(clip, len(clip) // 2, axis=0))  # noqa: E731
    assert "order_shuffled" in findings(of_input(Behind(halves)))


@pytest.mark.parametrize(
    ("seeds", "finding"),
    [
        (lambda seed, count: seed, set()),
        (lambda seed, count: count, {"seed_ignored"}),
        (lambda seed, count: 7, {"seed_ignored"}),
    ],
)
def test_seeds(seeds: Callable[[int, int], int], finding: set[str]) -> None:
    asked = ask(Behind(seeds=seeds))
    asked.policy.logprobs = True  # type: ignore[attr-defined]
    found = check_seed(asked, BASE[1])
    if seeds(1, 0) == seeds(2, 0) == 7:  # one token of probability 0.9 may be alike by chance
        assert found.verdict in ("wrong", "cannot tell")
    else:
        assert findings([found]) == finding


@pytest.mark.parametrize(
    ("stop", "verdict", "finding"),
    [("keep", "ok", None), ("strip", "wrong", "stop_stripped"), ("ignore", "wrong", "stop_ignored")],
)
def test_stop_strings_that_no_policy_mends(stop: str, verdict: str, finding: str | None) -> None:
    """This policy mends nothing: what it is given is what counts."""
    found = check_stop(ask(Behind(stop=stop)), BASE[1], "Is the ring visible?")
    if stop == "ignore":  # nothing follows the closing tag, so nothing is lost
        assert (found.verdict, found.finding) == ("note", finding)
    else:
        assert (found.verdict, found.finding) == (verdict, finding)


def test_room_is_bisected_and_the_reason_passed_on() -> None:
    fits = check_room(ask(Behind()))
    assert [one.verdict for one in fits] == ["ok", "ok"] and "16 frames fit" in fits[0].seen
    first, second = check_room(ask(Behind(most=10)))
    assert first.finding == "frames_do_not_fit" and "10 frames of the first look fit" in first.seen
    assert "At most so many images" in first.seen and "--frames 10" in first.do
    assert second.verdict == "cannot tell"
    assert findings(check_room(ask(Behind(most=20)))) == {"looks_do_not_fit"}
    assert check_room(ask(Behind(), tools=False))[1].verdict == "note"


def test_room_is_asked_for_as_an_episode_asks() -> None:
    """The reply's limit counts, its stops are sent, and crops have the size and number that an episode gives them."""
    behind = Behind()
    free = {"frame_size_wh": None, "skim_pixels": 64 * 64, "crop_pixels": 160 * 160, "min_pixels": 0}
    _, looks = check_room(ask(behind, **free, max_segments_per_call=2))
    assert looks.verdict == "ok" and "2 turns of 2 crops of 12 frames fit" in looks.seen
    refs, sampling = max(behind.shown, key=lambda one: len(one[0]))
    assert [len(ref.at_seconds) for ref in refs] == [16, 12, 12, 12, 12]
    assert [ref.view for ref in refs] == ["skim"] + ["crop"] * 4
    skim, *crops = (ref.size_wh[0] * ref.size_wh[1] for ref in refs)
    assert skim <= 64 * 64 < min(crops) and max(crops) <= 160 * 160
    assert {one.max_new_tokens for _, one in behind.shown[1:]} == {SETTINGS.max_new_tokens}
    assert sampling.stop == tuple(PROTOCOLS["videotemp"].stop)


def test_a_context_that_has_no_room_for_the_reply_is_too_small() -> None:
    room, _ = check_room(ask(Behind(context=16 + 63)))
    assert room.finding == "frames_do_not_fit" and "maximum context length" in room.seen
    room, looks = check_room(ask(Behind(context=16 + 64)))
    assert room.verdict == "ok" and looks.finding == "looks_do_not_fit"


def test_more_frames_than_a_check_can_make_are_not_made() -> None:
    behind = Behind()
    looks = check_room(ask(behind, max_turns=100, crop_max_frames=64))[1]
    assert looks.verdict == "cannot tell" and "19024 frames" in looks.seen and "--max-turns" in looks.do
    assert max(sum(len(ref.at_seconds) for ref in refs) for refs, _ in behind.shown) <= 16


def test_how_many_looks_fit_is_told_where_not_all_do() -> None:
    looks = check_room(ask(Behind(most=16 + 2 * 12)))[1]
    assert looks.finding == "looks_do_not_fit" and "with 1 crop in each of 2 turns" in looks.seen
    none = check_room(ask(Behind(most=16 + 12)))[1]
    assert none.finding == "looks_do_not_fit" and "nor does 1 crop in each" in none.seen


@given(most=st.integers(0, 64))
def test_the_number_of_frames_that_fit_is_never_overstated(most: int) -> None:
    first = check_room(ask(Behind(most=most), skim_frames=64, tools=False))[0]
    assert (first.verdict == "ok") == (most >= 64)
    if 2 <= most < 64:
        told = int(first.seen.split(" ")[0])
        assert told <= most < told + 6
    if most < 2:
        assert "not even 2" in first.seen


def test_a_server_that_refuses_is_no_server() -> None:
    with pytest.raises(MissingError, match="no such model"):
        ask(Behind(refuses="no such model"))


def test_a_comparison_knows_noise_from_change() -> None:
    steady = Seen("a", 10, (1,), (-0.5,))
    other = replace(steady, scores=(-0.50001,))
    assert compare([steady], [steady], [steady]).seen is False
    assert compare([steady], [steady], [replace(steady, scores=(-0.6,))]).scores is True
    assert (
        compare([steady], [replace(steady, scores=(-0.6,))], [replace(steady, scores=(-0.7,))]).scores
        is False
    )
    assert compare([steady], [steady], [replace(other, scores=(-0.500001,))]).seen is False
    wobbly = compare([Seen("a")], [Seen("b")], [Seen("c")])
    assert wobbly.seen is None and wobbly.by == "nothing"
    assert compare([Seen("a", 3)], [Seen("a", 3)], [Seen("a", 4)]).tokens is True
    assert compare([steady], [steady], [replace(steady, error="gone")]).seen is None


def played(stop: StopReason) -> Trajectory:
    turn = Turn(generation=Generation(text="?"), problem=Problem(reason="empty", message="neither"))
    return Trajectory(
        example=Example(id="1", video="v", question="q"), policy="p", protocol="small", stop=stop, turns=(turn,),
        problem=Problem(reason="empty", message="neither"),
    )  # fmt: skip


def test_the_grammar_by_the_ends_of_episodes() -> None:
    good, bad = played(StopReason.ANSWERED), played(StopReason.FORMAT)
    assert grammar_of([good, good]).verdict == "ok"
    assert grammar_of([good, good, bad]).finding == "grammar_slips"
    assert grammar_of([good, bad]).finding == "grammar_broken"
    assert grammar_of([good, good, played(StopReason.INFRASTRUCTURE)]).finding == "episodes_lost"


def test_what_is_told_is_counted() -> None:
    checks = [
        Check("a", "ok", "fine"),
        Check("b", "wrong", "bad", "means", "do"),
        Check("c", "cannot tell", "hm"),
    ]
    assert summary_of(checks) == "1 ok, 0 noted, 1 wrong, 1 cannot tell"
    assert lines_of(checks[1])[0].startswith("wrong") and len(lines_of(checks[1])) == 3
    assert len(lines_of(checks[0])) == 1


def test_all_checks_in_a_row(tmp_path: Path) -> None:
    asked = ask(Behind())
    checks = list(selfcheck(asked, tmp_path))
    assert not findings(checks) and all(one.verdict == "ok" for one in checks), checks
    assert asked.num_requests < 70


@pytest.mark.parametrize("most", [0, 12])
def test_a_server_that_takes_too_few_frames_fails_each_check_with_its_reason(
    tmp_path: Path, most: int
) -> None:
    checks = list(selfcheck(ask(Behind(most=most)), tmp_path))
    found = {one.name: one for one in checks}
    assert found["pictures"].finding == "pictures_refused" and found["room"].finding == "frames_do_not_fit"
    assert found["grammar"].finding == "episodes_lost" and "At most so many" in found["grammar"].seen
    for name in ("timestamps", "clock", "seconds", "order", "stop string", "seed", "second look"):
        assert found[name].verdict == "cannot tell", name


@pytest.mark.parametrize("lives", [1, 9, 25, 40])
def test_a_server_that_dies_in_between_ends_no_check_without_a_word(tmp_path: Path, lives: int) -> None:
    behind = Behind(lives=lives)
    asked = ask(behind)
    asked.make = lambda **given: replace(behind, lives=0)
    checks = list(selfcheck(asked, tmp_path))
    assert any(one.verdict == "wrong" for one in checks)
    assert findings(checks) <= {
        "pictures_refused", "frames_do_not_fit", "episodes_lost", "stop_refused", "looks_do_not_fit",
        "second_look_refused",
    }, checks  # fmt: skip
