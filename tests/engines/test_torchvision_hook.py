"""A torchvision whose compiled part does not load imports all the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from timeloupe.engines import torchvision_hook

PACKAGE = {
    "__init__.py": "from torchvision import _meta_registrations",
    "_meta_registrations.py": """
import torch
@torch.library.register_fake("torchvision::nms")
def nms(dets, scores, iou_threshold): ...
@torch.library.register_fake("torchvision::qnms")
def qnms(dets, scores, iou_threshold): ...
""",
}


def imported(folder: Path, start: str) -> subprocess.CompletedProcess[str]:
    """Import the torchvision in ``folder`` after the code ``start``, in a process of its own."""
    script = f"import sys; sys.path.insert(0, {str(folder)!r}); {start}; import torchvision"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)


def test_the_hook_declares_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "torchvision").mkdir()
    for name, text in PACKAGE.items():
        (tmp_path / "torchvision" / name).write_text(text)
    # As `make vllm-env` installs it: the file alone, under another name.
    (tmp_path / "hook.py").write_bytes(Path(torchvision_hook.__file__).read_bytes())
    broken = imported(tmp_path, "pass")
    assert broken.returncode != 0 and "torchvision::nms does not exist" in broken.stderr
    mended = imported(
        tmp_path, "import hook; hook.install(); hook.install(); assert 'torch' not in sys.modules"
    )
    assert mended.returncode == 0, mended.stderr
