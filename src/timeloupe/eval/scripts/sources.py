"""Where each official script comes from: repository and commit, by the script's name."""

from __future__ import annotations

_LMMS = "EvolvingLMMs-Lab/lmms-eval"
_MUSEG = "THUNLP-MT/MUSEG@889565e7"
_TIMESUITE = "OpenGVLab/TimeSuite@d68f5feb"
_VIDEOMIND = "yeliudev/VideoMind@6721d256"
_NEXTGQA = "doc-doc/NExT-GQA@63772e02"
_MLVU = "JUNJIE99/MLVU@fd060c10"
_LVBENCH = "THUDM/LVBench@f998d955"

SOURCES = {
    "calculate": _MLVU,
    "cgbench": "CG-Bench/CG-Bench@f8266087",
    "choice_bench": _MLVU,
    "compute_accuracy": _LVBENCH,
    "etbench": f"{_MUSEG}, its copy of E.T. Bench",
    "etchat": "PolyU-ChenLab/ETBench@445f620e",
    "eval_ground": _NEXTGQA,
    "eval_ground_gs": _NEXTGQA,
    "eval_mc": "doc-doc/NExT-QA@6b92588a",
    "eval_next": _NEXTGQA,
    "eval_your_results": "thanku-all/parse_answer@afd52cfe",
    "eval_your_results-older": "BradyFU/Video-MME@4e7566d3",
    "lmms-eval": f"{_LMMS}@75571cfe",
    "lmms-eval-old": f"{_LMMS}@d0c1eae7",
    "lmms-eval-timelens": f"{_LMMS}@75571cfe",
    "lmms-eval-tvg": f"{_LMMS}@75571cfe",
    "moment_detr": "jayleicn/moment_detr@b7e553ac",
    "museg": _MUSEG,
    "museg-tal": _MUSEG,
    "museg-untagged": _MUSEG,
    "openo3": "marinero4972/Open-o3-Video@1eb6ecae",
    "polish_answer": _LVBENCH,
    "rextime": "ReXTime/ReXTime@cb9f4841",
    "taro": "oceanflowlab/TaRO@143a234f",
    "time-r1": "xiaomi-research/time-r1@7f2b5944",
    "timelens": "TencentARC/TimeLens@5d90c067",
    "timesuite": _TIMESUITE,
    "timesuite-sample": _TIMESUITE,
    "timesuite_vhd": _TIMESUITE,
    "videomind": _VIDEOMIND,
    "videomind-confident": _VIDEOMIND,
    "videommmu": "EvolvingLMMs-Lab/VideoMMMU@88b4ac3e",
    "videotemp-o3": "Kwai-Keye/VideoTemp-o3, eval/score.py",
    "vlmevalkit": "open-compass/VLMEvalKit@e8e78f05",
    "vstar": "V-STaR-Bench/V-STaR@1894682b",
}
"""One entry for every key of a ``Benchmark.official``."""


def source_of(mode: str) -> str:
    """Return repository and commit behind a mode such as ``official:taro``; "" for the strict one."""
    return SOURCES.get(mode.removeprefix("official:"), "")
