"""What official scripts read out of a model's text, fault for fault: times, option letters."""

from __future__ import annotations

from timeloupe.eval.extractors.times import TIME_EXTRACTORS

__all__ = ["TIME_EXTRACTORS"]
