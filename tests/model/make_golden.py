"""Write golden/frames.npz: what the library's own video and image processors make of small random frames.

Needs transformers 5.17 or later and torchvision 0.28.0 in one environment; see golden/SOURCE.md. Not run by
the tests.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

# A torchvision built for CUDA imports beside CPU torch once these two operators have a schema.
_library = torch.library.Library("torchvision", "DEF")
_library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
_library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor  # noqa: E402
from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor  # noqa: E402
from transformers.models.qwen3_vl.video_processing_qwen3_vl import Qwen3VLVideoProcessor  # noqa: E402

FREE = {"shortest_edge": 1, "longest_edge": 10**9}  # sizes are only rounded to the multiple
CASES = {
    "exact": (4, 64, 32),
    "odd_frames": (3, 32, 32),
    "shrink": (2, 45, 70),
    "enlarge": (2, 50, 21),
}


def main() -> None:
    """Write the file."""
    random = np.random.default_rng(20261121)
    kept: dict[str, Any] = {}
    for name, (num_frames, height, width) in CASES.items():
        frames = random.integers(0, 256, (num_frames, height, width, 3), dtype=np.uint8)
        frames[:, height // 3 : height // 2] //= 5
        kept[f"{name}.frames"] = frames
        video = torch.from_numpy(frames).permute(0, 3, 1, 2)
        for family, kind in (("qwen3_vl", Qwen3VLVideoProcessor), ("qwen2_5_vl", Qwen2VLVideoProcessor)):
            if family == "qwen2_5_vl" and name == "exact":
                continue
            processor = kind(size=dict(FREE))
            out = processor([video], do_sample_frames=False, cap_pixels_per_frame=False, return_tensors="pt")
            kept[f"{name}.{family}.patches"] = out["pixel_values_videos"].numpy()
            kept[f"{name}.{family}.grid"] = out["video_grid_thw"].numpy()
    image = kept["shrink.frames"][0]
    out = Qwen2VLImageProcessor(size=dict(FREE))(
        [torch.from_numpy(image).permute(2, 0, 1)], return_tensors="pt"
    )
    kept["image.qwen2_5_vl.patches"] = out["pixel_values"].numpy()
    kept["image.qwen2_5_vl.grid"] = out["image_grid_thw"].numpy()
    np.savez_compressed(Path(__file__).parent / "golden" / "frames.npz", **kept)
    for key, value in kept.items():
        print(key, value.shape, value.dtype)


if __name__ == "__main__":
    main()
