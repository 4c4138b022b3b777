"""A recipe so small that a training run takes seconds."""

from typing import Any

SIZES = {
    "hidden": 32, "layers": 2, "heads": 2, "feed_forward": 32, "vision_hidden": 16, "frame_size": 32,
    "skim_frames": 8, "crop_frames": 4,
}  # fmt: skip


def tiny_recipe(*, steps: int = 6, mp4: bool = False, **stage: Any) -> dict[str, Any]:
    """Return a recipe with a short alignment stage and one world stage."""
    world = {
        "name": "world", "kind": "world", "world_seed": 5, "steps": steps, "batch": 2, "lr": 0.01, "optimizer": "muon",
        "min_seconds": 60, "max_seconds": 70, "readout_layer": 1,
        "mix": {"direct": 0.2, "first_reply": 0.2, "recall": 0.1, "wrong_first": 0.3},
    }  # fmt: skip
    if mp4:
        world |= {"pixels": "mp4", "num_videos": 1}
    alignment = {"name": "align", "kind": "alignment", "world_seed": 4, "steps": 2, "batch": 8, "lr": 0.01}
    return {
        "seed": 1, "checkpoint_every": 10, "model": {"from_scratch": SIZES}, "stages": [alignment, world | stage],
    }  # fmt: skip
