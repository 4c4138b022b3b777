"""Plants one difference at a time between two runs, and shows what `timeloupe diff` names.

    python benchmarks/eval_diff.py FOLDER [--videos 30] [--record]

Everything goes through the commands a user types: ``world make``, ``eval``, ``diff --json``. The model is the embedded
one. Planted are: frames a second and number of frames of the first look, the system prompt, the size of frames, the
temperature, and the scorer. Each is compared with one and the same run that has none of them; right is who names the
area of the planted difference and no other. (The commit is told apart: it changes where somebody commits meanwhile.)

FOLDER keeps the runs: a second call plays only what is missing. With --record the figures go to docs/results.json.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

from timeloupe.cli.main import main as timeloupe
from timeloupe.policy.small import SMALL_CHECKPOINT

WORLD_SEED = 1_000_555
COMMON = ["--policy", "local", "--threads", "1"]
PROMPT = "Answer with the time. Look closer only if you must."

PLANTS: dict[str, tuple[str, list[str]]] = {
    "frames a second": ("frames", ["--model", "slow"]),
    "frames": ("frames", ["--frames", "8"]),
    "prompt": ("prompt", ["--system-prompt", "prompt.txt"]),
    "pixels": ("pixels", ["--pixels", "4096"]),
    "sampling": ("sampling", ["--temperature", "3"]),
}
"""What is planted -> the area that must be named, and the flags that plant it."""

SCRIPT = "official:time-r1"
"""The scorer that is planted: it reads no ``[21, 39]``, which is how the small model writes."""


def main() -> None:
    """Plant, compare, and print what was named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where worlds and runs are kept")
    parser.add_argument("--videos", type=int, default=30, help="videos of the world, two questions each")
    parser.add_argument("--record", action="store_true", help="write docs/results.json")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    found = study(options.folder.absolute(), options.videos)
    if options.json:
        print(json.dumps(found))
        return
    for name, one in found.items():
        verdict = "right" if one["named"] == [one["planted"]] else "WRONG"
        change, low, high = (one["change"][key] for key in ("mean", "low", "high"))
        print(f"{name:<16} named {', '.join(one['named']):<10} {verdict}  {change:+.3f} [{low:+.3f}, {high:+.3f}]  "
              f"{one['changed']} of {one['compared']} rows: {one['reasons']}")  # fmt: skip
    if options.record:
        _record(found, options.videos)


def study(folder: Path, videos: int) -> dict[str, dict[str, Any]]:
    """Return, by what was planted, what ``diff`` named and found."""
    folder.mkdir(parents=True, exist_ok=True)
    world = folder / "world"
    if not (world / "examples.jsonl").is_file():
        call("world", "make", world, "--videos", videos, "--seed", WORLD_SEED, "--minutes", "1:2")
    for name, changes in (("plain", {}), ("slow", {"skim_fps": 0.1})):
        copy_model(folder / name, changes)
    (folder / "prompt.txt").write_text(PROMPT, encoding="utf-8")
    base = ["--model", "plain", "--pixels", "1024"]
    play(folder, "base", "world", world, base)
    found: dict[str, dict[str, Any]] = {}
    for name, (area, flags) in PLANTS.items():
        named = {flag for flag in flags if flag.startswith("--")}
        kept = [word for at in range(0, len(base), 2) if base[at] not in named for word in base[at : at + 2]]
        run = play(folder, name.replace(" ", "_"), "world", world, [*kept, *flags])
        found[name] = compare(folder / "base", run, area)
    rows = charades(world, folder / "charades.jsonl")
    videos_flag = ["--videos", str(world / "videos")]
    for mode in ("strict", SCRIPT):
        play(folder, mode.replace(":", "_"), "charades_sta", rows, [*base, *videos_flag, "--mode", mode])
    found["scorer"] = compare(folder / "strict", folder / SCRIPT.replace(":", "_"), "scorer")
    found["scorer, one run"] = compare(
        folder / "strict", folder / "strict", "scorer", "--mode", "strict", "--mode", SCRIPT
    )
    return found


def play(folder: Path, name: str, bench: str, data: Path, flags: list[str]) -> Path:
    """Play a run, or what is missing of it, and return its folder."""
    run = folder / name
    if (run / "card.json").is_file():
        return run
    words = [str(folder / word) if word in ("plain", "slow", "prompt.txt") else word for word in flags]
    call("eval", bench, "--data", data, "--run", run, *COMMON, *words, "--json")
    return run


def compare(one: Path, two: Path, planted: str, *words: str) -> dict[str, Any]:
    """Return what ``diff`` says of two runs, in short."""
    said = json.loads(call("diff", one, two, *words, "--json"))
    live = [item["area"] for item in said["differences"] if not item["idle"]]
    first = said["scores"][0]["figures"][0]
    return {
        "planted": planted, "named": [area for area in live if area != "code"],
        "settings": [one["key"] for item in said["differences"] if not item["idle"] for one in item["settings"]],
        "figure": first["name"], "change": first["change"], "compared": said["rows"]["compared"],
        "changed": said["rows"]["changed"], "reasons": said["rows"]["reasons"], "effects": said["rows"]["effects"],
    }  # fmt: skip


def copy_model(folder: Path, changes: dict[str, Any]) -> None:
    """Copy the embedded checkpoint with frames of any size, so that ``--pixels`` means something."""
    if not folder.is_dir():
        shutil.copytree(SMALL_CHECKPOINT, folder)
    details = json.loads((folder / "timeloupe.json").read_text(encoding="utf-8"))
    details["episode"] = {
        **{key: value for key, value in details["episode"].items() if key != "frame_size_wh"},
        "min_pixels": 1024,
        **changes,
    }
    (folder / "timeloupe.json").write_text(json.dumps(details), encoding="utf-8")


def charades(world: Path, file: Path) -> Path:
    """Write the grounding questions of a world as annotations of Charades-STA, and return the file."""
    lengths = {}
    for line in (world / "truth.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        lengths[Path(row["video"]).name] = row["duration_seconds"]
    lines = []
    for line in (world / "examples.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if row["task"] == "grounding":
            windows = [[one["start_seconds"], one["end_seconds"]] for one in row["segments"]]
            name = Path(row["video"]).name
            lines.append(json.dumps({
                "qid": row["id"], "query": row["question"], "vid": Path(name).stem, "duration": lengths[name],
                "relevant_windows": windows,
            }))  # fmt: skip
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def call(*words: Any) -> str:
    """Run a command of timeloupe in this process and return what it prints.

    Raises:
        SystemExit: It failed.
    """
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = timeloupe([str(word) for word in words])
    if code:
        raise SystemExit(f"timeloupe {' '.join(map(str, words))} ended with {code}")
    return out.getvalue()


def _record(found: dict[str, dict[str, Any]], videos: int) -> None:
    from record import record

    figures = {
        name: {
            "named rightly": float(one["named"] == [one["planted"]]),
            "change of the mean": {key: one["change"][key] for key in ("mean", "low", "high")},
            "rows that differ": one["changed"], "rows": one["compared"],
            **{f"by {reason}": one["reasons"].get(reason, 0) for reason in ("parse", "segment", "answer", "scorer")},
        }
        for name, one in found.items()
    }  # fmt: skip
    record(
        "eval_diff", title="What `timeloupe diff` names when one difference is planted",
        command=f"python benchmarks/eval_diff.py FOLDER --videos {videos} --record", seeds=[0], n=2 * videos,
        figures=figures,
        notes=[
            "Named rightly: the area of the planted difference is named and no other (1), else 0.",
            f"The scorer is {SCRIPT} against strict, once over two runs and once over one run with --mode given twice; "
            "these rows are the grounding questions alone.",
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
