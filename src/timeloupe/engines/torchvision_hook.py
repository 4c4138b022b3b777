"""Makes ``import torchvision`` work beside a torch without CUDA.

The torchvision wheel on the package index is built for CUDA. Beside a CPU torch its compiled part does not load, and
then the import of the package itself fails, on the description of two operators that nobody has declared. Declared by
name they stay unusable (``nms`` fails when called), but resizing and normalising, which are plain torch, work: that
is all that transformers' and vLLM's image and video processors need.

`make vllm-env` copies this file into a virtual environment, beside a ``.pth`` file that calls ``install`` when Python
starts. It therefore imports nothing of this project, and torch only once torchvision is being imported.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

OPERATORS = ("nms", "qnms")
SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
WATCHED = "torchvision._meta_registrations"


class DeclareOperators(MetaPathFinder):
    """Finds no module; declares the missing operators just before torchvision describes them."""

    def __init__(self) -> None:
        self.library: Any = None

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return ``None``: the usual finders go on."""
        if fullname == WATCHED and self.library is None:
            import torch

            missing = [name for name in OPERATORS if not hasattr(torch.ops.torchvision, name)]
            # Kept: the declarations go when the library object goes.
            self.library = torch.library.Library("torchvision", "FRAGMENT")
            for name in missing:
                self.library.define(name + SCHEMA)
        return None


def install() -> None:
    """Put the finder in front; a second call changes nothing."""
    if not any(type(finder).__name__ == DeclareOperators.__name__ for finder in sys.meta_path):
        sys.meta_path.insert(0, DeclareOperators())
