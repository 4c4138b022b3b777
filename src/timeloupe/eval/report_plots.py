"""Plots of a report as small SVG pictures, drawn by hand: no library, light and dark. Pure.

Colours stand in classes, so that a page brings them in its style sheet; as a file of its own a picture has that style
sheet inside.
"""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from timeloupe.eval.metrics import Interval
from timeloupe.eval.report import BenchReport, Entry

WIDTH, HEIGHT = 640, 320
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 34, 48
COLOURS = 8

STYLE = """
.plot { font: 12px system-ui, sans-serif; max-width: 100%; height: auto; --ink: #1c2733; --soft: #5b6875;
  --line: #d5dbe1; --ground: #ffffff; --c0: #1f6fb2; --c1: #c8541f; --c2: #2b8a4b; --c3: #8a4fb5; --c4: #b58900;
  --c5: #0f8b8d; --c6: #b8336a; --c7: #5b6875; }
@media (prefers-color-scheme: dark) { .plot { --ink: #e4eaf0; --soft: #9aa7b4; --line: #38434f; --ground: #14191f;
  --c0: #6cb2ee; --c1: #f0925f; --c2: #6cc88a; --c3: #c39be6; --c4: #e0bd4a; --c5: #56c9cb; --c6: #ee7fae;
  --c7: #9aa7b4; } }
.plot .ground { fill: var(--ground); } .plot text { fill: var(--ink); } .plot .soft { fill: var(--soft); }
.plot .axis { stroke: var(--soft); fill: none; } .plot .grid { stroke: var(--line); fill: none; }
.plot .floor { stroke: var(--soft); stroke-dasharray: 4 4; fill: none; }
""" + "".join(
    f".plot .c{number} {{ stroke: var(--c{number}); fill: var(--c{number}); }}\n" for number in range(COLOURS)
)

SHAPES = ("circle", "square", "diamond", "triangle")


@dataclass(frozen=True)
class Plot:
    """A picture.

    Attributes:
        name: For the name of its file.
        caption: What it shows, in a sentence.
        body: What stands inside the ``svg`` element.
        height: In pixels; the width is ``WIDTH``.
    """

    name: str
    caption: str
    body: str
    height: int

    def inline(self) -> str:
        """Return the picture for a page that has ``STYLE``."""
        label = html.escape(one_line(self.caption), quote=True)
        return (
            f'<svg class="plot" viewBox="0 0 {WIDTH} {self.height}" width="{WIDTH}" height="{self.height}" role="img" '
            f'aria-label="{label}">{self.body}</svg>'
        )

    def file(self) -> str:
        """Return the picture as a file of its own."""
        opening = f'<svg xmlns="http://www.w3.org/2000/svg" class="plot" viewBox="0 0 {WIDTH} {self.height}" '
        opening += f'width="{WIDTH}" height="{self.height}" role="img">'
        opening += f"<title>{html.escape(one_line(self.caption))}</title>"
        ground = f'<rect class="ground" width="{WIDTH}" height="{self.height}"/>'
        return f"{opening}<style>{STYLE}</style>{ground}{self.body}</svg>\n"


def plots(bench: BenchReport) -> list[Plot]:
    """Return the plots that there is something to draw for: by length, against tokens, against seconds."""
    found: list[Plot] = []
    if len(next(iter(bench.entries)).durations) > 1:
        found.append(by_duration(bench))
    walls = [entry.cost.wall_seconds for entry in bench.entries]
    tokens = [entry.cost.tokens for entry in bench.entries]
    if any(value is not None for value in tokens):
        found.append(against(bench, tokens, "tokens", "tokens per episode, prompts and replies"))
    if None not in walls:
        found.append(against(bench, walls, "seconds", "seconds of the whole run per episode"))
    else:
        seconds: list[float | None] = [entry.cost.seconds for entry in bench.entries]
        found.append(against(bench, seconds, "seconds", "seconds from an episode's begin to its end"))
    return found


def by_duration(bench: BenchReport) -> Plot:
    """Return the strict mean over questions by length of the video, with intervals."""
    bins = list(bench.entries[0].durations)
    parts = [*_frame(), *_floor(bench)]
    slot = (WIDTH - LEFT - RIGHT) / len(bins)
    for at, name in enumerate(bins):
        middle = LEFT + (at + 0.5) * slot
        count = bench.entries[0].durations[name].num_total
        parts.append(_text(middle, HEIGHT - BOTTOM + 18, name, "middle"))
        parts.append(_text(middle, HEIGHT - BOTTOM + 34, f"n = {count}", "middle", "soft"))
    for number, entry in enumerate(bench.entries):
        shift = (number - (len(bench.entries) - 1) / 2) * min(14.0, 0.7 * slot / len(bench.entries))
        points = []
        for at, name in enumerate(bins):
            interval = entry.durations[name]
            if interval.mean is not None:
                points.append((LEFT + (at + 0.5) * slot + shift, interval))
        path = " ".join(f"{x:.1f},{_y(one.mean or 0.0):.1f}" for x, one in points)
        parts.append(
            f'<polyline class="c{number % COLOURS}" fill-opacity="0" stroke-opacity="0.5" points="{path}"/>'
        )
        parts += [_point(x, interval, number) for x, interval in points]
    legend, height = _legend([entry.label for entry in bench.entries], HEIGHT)
    caption = f"{bench.title}: strict score by length of the video, with 95 % intervals"
    return Plot("by-length", caption, "".join([*parts, legend]), height)


def against(bench: BenchReport, costs: Sequence[float | None], name: str, title: str) -> Plot:
    """Return the strict mean over questions against what a question costs; entries without a cost are left out."""
    known = [(entry, number, cost) for number, (entry, cost) in enumerate(zip(bench.entries, costs, strict=True))
             if cost is not None]  # fmt: skip
    most = _nice(max((cost for *_, cost in known), default=1.0) * 1.08 or 1.0)
    parts = [*_frame(), *_floor(bench)]
    for at in range(5):
        value = most * at / 4
        x = LEFT + (WIDTH - LEFT - RIGHT) * at / 4
        parts.append(_text(x, HEIGHT - BOTTOM + 18, f"{value:.4g}", "end" if at == 4 else "middle", "soft"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM + 36, title, "middle"))
    for entry, number, cost in known:
        parts.append(_point(LEFT + (WIDTH - LEFT - RIGHT) * cost / most, entry.overall, number))
    legend, height = _legend(
        [_counted(entry, cost) for entry, cost in zip(bench.entries, costs, strict=True)], HEIGHT
    )
    caption = f"{bench.title}: strict score against {title}, with 95 % intervals"
    return Plot(f"against-{name}", caption, "".join([*parts, legend]), height)


def _counted(entry: Entry, cost: float | None) -> str:
    return f"{entry.label} (not counted)" if cost is None else entry.label


def _frame() -> list[str]:
    """Axes, and lines at every fifth."""
    parts = []
    for at in range(6):
        y = _y(at / 5)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(LEFT - 8, y + 4, f"{at / 5:.1f}", "end", "soft"))
    parts.append(_text(LEFT - 50, TOP - 16, "strict mean over questions", "start", "soft"))
    low = _y(0.0)
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{low:.1f}" y2="{low:.1f}"/>')
    return parts


def _floor(bench: BenchReport) -> list[str]:
    """The best score that needs no look."""
    if bench.floor is None:
        return []
    name, value = bench.floor
    y = _y(value)
    return [
        f'<line class="floor" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>',
        _text(WIDTH - RIGHT, y - 4, f"without looking: {name}", "end", "soft"),
    ]


def _point(x: float, interval: Interval, number: int) -> str:
    if interval.mean is None:
        return ""
    y = _y(interval.mean)
    span = ""
    if interval.low is not None and interval.high is not None:
        top, bottom = _y(interval.high), _y(interval.low)
        span = f'<line stroke-width="1.5" x1="{x:.1f}" x2="{x:.1f}" y1="{top:.1f}" y2="{bottom:.1f}"/>'
    return f'<g class="c{number % COLOURS}">{span}{_shape(x, y, number)}</g>'


def _shape(x: float, y: float, number: int) -> str:
    """A mark; shapes change when the colours have been used up, so that none comes twice."""
    shape = SHAPES[number // COLOURS % len(SHAPES)]
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>'
    corners = {
        "square": ((-4, -4), (4, -4), (4, 4), (-4, 4)),
        "diamond": ((0, -6), (6, 0), (0, 6), (-6, 0)),
        "triangle": ((0, -6), (5, 4), (-5, 4)),
    }[shape]
    points = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<polygon points="{points}"/>'


def _legend(labels: Sequence[str], top: float) -> tuple[str, int]:
    """Two columns of labels below a plot, and the height of it all."""
    parts = []
    for number, label in enumerate(labels):
        x, y = LEFT + (number % 2) * (WIDTH - LEFT) / 2, top + 14 + (number // 2) * 20
        parts.append(f'<g class="c{number % COLOURS}">{_shape(x, y - 4, number)}</g>')
        parts.append(_text(x + 12, y, label if len(label) <= 38 else f"...{label[-35:]}", "start"))
    return "".join(parts), math.ceil(top + 10 + math.ceil(len(labels) / 2) * 20)


def one_line(text: str) -> str:
    """Return text on one line: signs that are not shown or turn text around, and blanks of any kind, become blanks."""
    return "".join(" " if unicodedata.category(sign)[0] in "CZ" else sign for sign in text)


def _text(x: float, y: float, words: str, anchor: str, kind: str = "") -> str:
    shown = html.escape(one_line(words))
    style = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{style}>{shown}</text>'


def _y(value: float) -> float:
    return TOP + (HEIGHT - BOTTOM - TOP) * (1 - min(1.0, max(0.0, value)))


def _nice(value: float) -> float:
    """The next number of the form 1, 2, 4 or 8 times a power of ten, or 6 of them."""
    if value < 1e-9 or not math.isfinite(value):
        return 1.0
    power = 10 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 6, 8, 10) if step * power >= value * (1 - 1e-12))
