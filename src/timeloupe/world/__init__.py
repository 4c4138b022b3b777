"""Procedural videos with exact ground truth: what happens (script), how it looks (render), MP4 files (encode), truth (teacher)."""
