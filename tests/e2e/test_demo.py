"""``timeloupe demo`` through the installed command: real MP4s, the embedded model, the page."""

import json
import subprocess
import sys
from pathlib import Path

from timeloupe.trajectory import read_trajectories

KEYS = {
    "n", "miou", "recall_at_0.3", "recall_at_0.5", "recall_at_0.7", "accuracy", "crops_per_question",
    "seconds_per_question", "frames_decoded_per_question", "frames_cached_per_question",
}  # fmt: skip


def test_the_demo_prints_one_object_and_writes_the_page(tmp_path: Path) -> None:
    words = [
        sys.executable, "-m", "timeloupe", "demo", "--seed", "3", "--questions", "2", "--json",
        "--out", str(tmp_path / "run"),
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    table = json.loads(done.stdout)
    assert set(table) == {"agentic", "single_pass", "controls"}
    assert set(table["controls"]) == {"question_only", "whole_video", "middle", "random"}
    for section in (table["agentic"], table["single_pass"], *table["controls"].values()):
        assert set(section) == KEYS
        assert section["n"] == 2
    assert table["agentic"]["crops_per_question"] > 0
    assert table["single_pass"]["crops_per_question"] == 0
    assert (
        table["agentic"]["frames_decoded_per_question"]
        > table["single_pass"]["frames_decoded_per_question"]
        > 0
    )
    trajectories = list(read_trajectories(tmp_path / "run" / "trajectories.jsonl"))
    assert len(trajectories) == 3
    page = (tmp_path / "run" / "index.html").read_text(encoding="utf-8")
    assert trajectories[0].example.question in page
    assert "answered" in done.stderr or "no answer" in done.stderr
