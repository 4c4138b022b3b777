"""``timeloupe eval A B``: several benchmarks one after another, each a run of its own in one folder.

::

    DIR/benchmarks.json    which benchmarks, where their files are, and the flags that all have
    DIR/A/                 the run of A, as if it had been played alone
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from timeloupe.cli.eval_resume import absolute_checkpoints, merged, resumed
from timeloupe.cli.eval_session import MACHINE_FLAGS, Session, plain
from timeloupe.errors import ConfigError, boundary

if TYPE_CHECKING:
    from rich.console import Console

PLAN = "benchmarks.json"

OF_ONE = ("bench", "data", "videos", "run", "resume")
"""Flags that each benchmark has for itself."""


def parts_of(flags: dict[str, Any], given: Set[str]) -> tuple[list[dict[str, Any]], Path | None]:
    """Return the flags of every run that a call plays, and the folder around them; ``None`` = it is one run alone.

    Args:
        flags: All flags; ``bench``, ``data`` and ``videos`` are lists.
        given: Keys of those that the user gave.

    Raises:
        ConfigError: Flags do not go together, or differ from those of the run that is resumed.
        MissingError: There is no run to be resumed.
    """
    whole = flags["resume"]
    if whole is not None and (whole / PLAN).is_file():
        return _resumed_parts(flags, given), whole
    typed = flags["bench"] or []
    if len(typed) > 1:
        return _new_parts(flags, typed)
    bench = typed[0] if typed else None
    names = [] if bench is None else [_key(bench)]
    own = {key: _placed(key, flags[key], names).get(names[0] if names else "") for key in ("data", "videos")}
    one = flags | {"bench": bench} | own
    if whole is not None:
        return [resumed(one, given)], None
    served = one["policy"] == "openai" or one["base_url"] is not None
    return [one | absolute_checkpoints(one, served)], None


def _new_parts(flags: dict[str, Any], typed: Sequence[str]) -> tuple[list[dict[str, Any]], Path | None]:
    from timeloupe.eval.registry import benchmark

    if flags["resume"] is not None:
        raise ConfigError(
            f"--resume {str(flags['resume'])!r} says what is played: leave {' '.join(typed)} out"
        )
    names = [benchmark(name).name for name in typed]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise boundary("benchmarks of one command", twice[0], "each once", "use --repeats for more episodes")
    data, videos = (_placed(key, flags[key], names) for key in ("data", "videos"))
    missing = [name for name in names if name not in data]
    if missing:
        raise ConfigError(
            f"timeloupe eval needs --data {missing[0]}=PATH, its annotations: with several benchmarks one --data each"
        )
    served = flags["policy"] == "openai" or flags["base_url"] is not None
    flags = flags | absolute_checkpoints(flags, served)
    root = flags["run"]
    return [
        flags | {"bench": name, "data": data[name], "videos": videos.get(name), "run": root and root / name}
        for name in names
    ], root


def _resumed_parts(flags: dict[str, Any], given: Set[str]) -> list[dict[str, Any]]:
    from timeloupe.runs import CONFIG

    root = flags["resume"]
    if extra := [key for key in ("bench", "data", "run") if key in given]:
        what = ", ".join("BENCH" if key == "bench" else f"--{key}" for key in extra)
        raise ConfigError(f"{str(root)!r} says itself which benchmarks it holds and where: leave {what} out")
    plan = _read_plan(root)
    videos = _placed("videos", flags["videos"], list(plan["benchmarks"]))
    parts: list[dict[str, Any]] = []
    for name, files in plan["benchmarks"].items():
        folder = root / name
        one = flags | {"resume": folder, "bench": name, "data": None, "videos": videos.get(name)}
        own = (set(given) - {"videos"}) | ({"videos"} if name in videos else set())
        if (folder / CONFIG).is_file():
            parts.append(resumed(one, own))
            continue
        stored = {key: value for key, value in plan["flags"].items() if key not in MACHINE_FLAGS}
        session = plan["flags"] | {"videos": files["videos"]}
        parts.append(merged(one, own, stored | {"bench": name, "data": files["data"]}, session, folder))
    return parts


def _read_plan(root: Path) -> dict[str, Any]:
    from timeloupe.runs import read_json

    plan = read_json(root / PLAN)
    if not isinstance(plan, dict) or not all(
        isinstance(plan.get(key), dict) for key in ("benchmarks", "flags")
    ):
        raise ConfigError(f"{str(root / PLAN)!r} must hold benchmarks and flags; take it away and start anew")
    return plan


def _key(name: str) -> str:
    return name.lower().replace("-", "_")


def _placed(key: str, values: Sequence[str] | None, names: Sequence[str]) -> dict[str, Path]:
    """Return the paths that ``--data`` or ``--videos`` gives, by benchmark.

    ``NAME=PATH`` is of one benchmark. A path alone is that of the only one, or the videos of all that have no other.

    Raises:
        ConfigError: A benchmark is named twice or not at all.
    """
    found: dict[str, Path] = {}
    common: Path | None = None
    for value in values or ():
        head, sign, tail = value.partition("=")
        if sign and _key(head) in names and not (len(names) == 1 and Path(value).exists()):
            if _key(head) in found:
                raise boundary(f"--{key}", value, f"{_key(head)} once")
            found[_key(head)] = Path(tail)
        elif common is not None:
            raise boundary(f"--{key}", value, f"one path without a name, and {common} is one")
        elif key == "data" and len(names) > 1:
            some = " ".join(f"--data {name}=PATH" for name in names)
            raise boundary("--data", value, "NAME=PATH where there are several benchmarks", some)
        else:
            common = Path(value)
    if common is not None:
        found = dict.fromkeys(names or [""], common) | found
    return found


def play_all(parts: Sequence[dict[str, Any]], root: Path, console: Console, as_json: bool) -> int:
    """Play several benchmarks one after another, print their scores and a table of all; return the worst exit code.

    Raises:
        ConfigError: A flag is wrong, or the folder holds other benchmarks; nothing is played then.
    """
    from timeloupe.runs import lock_run

    sessions = sessions_of(parts, console, root)
    ends: list[tuple[Session, int, dict[str, Any]]] = []
    with lock_run(root):
        _keep_plan(root, sessions)
        for number, session in enumerate(sessions, 1):
            console.rule(f"{session.questions.benchmark.name}, {number} of {len(sessions)}")
            with lock_run(session.folder):
                tally = session.play()
                if tally.left:
                    later = len(sessions) - number
                    session.tell_resume(
                        f"{tally.left} episodes are left, and {later} benchmarks after this one"
                    )
                    return 130
                ends.append((session, *session.report(tally, as_json)))
    worst = max(code for _, code, _ in ends)
    if as_json:
        runs = [
            {"benchmark": one.questions.benchmark.name, "exit_code": code} | facts
            for one, code, facts in ends
        ]
        typer.echo(json.dumps({"run": str(root), "exit_code": worst, "runs": runs}, allow_nan=False))
    else:
        typer.echo("\n".join(_table(ends)))
    return worst


def sessions_of(parts: Sequence[dict[str, Any]], console: Console, root: Path | None) -> list[Session]:
    """Return the session of every part; those that ask the same model share it."""
    policies: dict[Any, Any] = {}
    return [Session(flags, console, policies=policies, whole=root) for flags in parts]


def _keep_plan(root: Path, sessions: Sequence[Session]) -> None:
    """Write which benchmarks the folder holds, so that it can be resumed before all have begun."""
    from timeloupe.runs import LOCK, differing_keys, write_json

    flags = {key: plain(value) for key, value in sessions[0].flags.items() if key not in OF_ONE}
    for key in ("dry_run", "as_json"):
        del flags[key]
    for key in ("base_url", "scorer_base_url"):  # a password stays out of the file
        if "@" in (flags[key] or ""):
            flags[key] = None
    files = {
        one.questions.benchmark.name: {key: plain(one.flags[key]) for key in ("data", "videos")}
        for one in sessions
    }
    wanted = json.loads(json.dumps({"benchmarks": files, "flags": flags}, allow_nan=False))
    if (root / PLAN).is_file():
        differing = differing_keys(_of_episodes(_read_plan(root)), _of_episodes(wanted))
        if differing:
            shown = "; ".join(f"{key}: there {old}, now {new}" for key, old, new in differing[:8])
            raise ConfigError(
                f"folder {str(root)!r} holds another configuration ({shown}), name another folder or use the same "
                "benchmarks and settings"
            )
    elif any(item.name != LOCK for item in root.iterdir()):
        raise ConfigError(
            f"folder {str(root)!r} is not empty and holds no {PLAN}, name a new or empty folder for several benchmarks"
        )
    write_json(root / PLAN, wanted)


def _of_episodes(plan: Mapping[str, Any]) -> dict[str, Any]:
    """A plan without what changes no episode."""
    return {
        "benchmarks": {name: {"data": files["data"]} for name, files in plan["benchmarks"].items()},
        "flags": {key: value for key, value in plan["flags"].items() if key not in MACHINE_FLAGS},
    }


def _table(ends: Sequence[tuple[Session, int, dict[str, Any]]]) -> list[str]:
    width = max(len(session.questions.benchmark.name) for session, _, _ in ends)
    lines = ["", f"{'benchmark':<{width}}  {'episodes':>8}  {'lost':>6}  score"]
    for session, _, facts in ends:
        name = session.questions.benchmark.name
        lines.append(f"{name:<{width}}  {facts['episodes']:>8}  {facts['lost']:>6}  {_headline(facts)}")
    return lines


def _headline(facts: Mapping[str, Any]) -> str:
    """The strict mean over all questions, else the first figure of the first mode, in words."""
    voted = (facts.get("voting") or {}).get("score")
    scores = [voted] if voted else facts["scores"]
    if not scores:
        return "none: too many episodes were lost"
    kind = "vote" if voted else f"mean of {len(scores)} repeats" if len(scores) > 1 else ""
    tail = f", {kind}" if kind else ""
    intervals = [score["interval"] for score in scores]
    if all(one is not None and one["mean"] is not None for one in intervals):
        mean = sum(one["mean"] for one in intervals) / len(intervals)
        low, high = intervals[0]["low"], intervals[0]["high"]
        span = f" [{low:.4f}, {high:.4f}]" if len(intervals) == 1 and low is not None else ""
        return f"{mean:.4f}{span} strict{tail}"
    for mode in scores[0]["modes"]:
        for name, value in mode["figures"].items():
            if isinstance(value, int | float):
                return f"{value:.4f} {mode['mode']} {name}" + (", first repeat" if len(scores) > 1 else "")
    return "none: no question could be scored"
