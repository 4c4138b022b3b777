"""Procedural videos with exact ground truth.

``script`` says what happens, ``render`` how it looks, ``encode`` makes MP4 files of it, ``teacher`` asks and knows.
"""
