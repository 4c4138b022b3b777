"""A report as one self-contained HTML page: no script, no request, light and dark. Pure.

Everything that a model, a run or a file is named by is put in as escaped text. A content security policy in the page
allows its own style sheet, by its hash, and nothing else.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from timeloupe.eval.report import BenchReport, Entry
from timeloupe.eval.report_markdown import TITLE
from timeloupe.eval.report_plots import STYLE, one_line, plots
from timeloupe.eval.report_tables import Grid, grids, heading, warnings
from timeloupe.serve.page import source_hash

PAGE_STYLE = (
    """
:root { color-scheme: light dark; --paper: #faf9f6; --sheet: #ffffff; --text: #1c1d21; --quiet: #5d5f68;
  --rule: #e4e1da; --warn: #8a4b00; --wash: #b26a0018; }
@media (prefers-color-scheme: dark) { :root { --paper: #15161a; --sheet: #1b1d22; --text: #e9e7e2; --quiet: #a3a5ad;
  --rule: #2b2e35; --warn: #f0b252; --wash: #f0b2521c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--text); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 24px 64px; }
h1 { font-size: 24px; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 19px; margin: 40px 0 4px; padding-top: 20px; border-top: 1px solid var(--rule); }
h3 { font-size: 15px; margin: 26px 0 8px; }
p { margin: 6px 0; } .quiet { color: var(--quiet); font-size: 13px; overflow-wrap: anywhere; }
.warn { background: var(--wash); border-left: 3px solid var(--warn); padding: 6px 12px; margin: 8px 0;
  overflow-wrap: anywhere; }
.wide { overflow-x: auto; border: 1px solid var(--rule); border-radius: 8px; background: var(--sheet); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: 13.5px; }
th, td { text-align: left; padding: 7px 12px; border-bottom: 1px solid var(--rule); vertical-align: top; }
td { min-width: 5em; max-width: 36em; overflow-wrap: anywhere; } tbody tr:last-child > * { border-bottom: 0; }
thead th { color: var(--quiet); font-weight: 600; }
tbody th { font-weight: 600; min-width: 11em; max-width: 22em; overflow-wrap: anywhere; }
tr.trivial > * { color: var(--quiet); font-weight: 400; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 18px;
  margin: 22px 0; }
figure { margin: 0; } figcaption { color: var(--quiet); font-size: 13px; margin-top: 4px; }
pre { margin: 0; padding: 10px 12px; overflow-x: auto; font: 12.5px/1.55 ui-monospace, monospace; }
figure .plot { background: var(--sheet); border: 1px solid var(--rule); border-radius: 8px; }
"""
    + STYLE
)


def render_report(found: Sequence[BenchReport], made: str = "") -> str:
    """Return the page.

    Args:
        found: The reports.
        made: A line below the title: when and by what it was made.
    """
    policy = f"default-src 'none'; style-src '{source_hash(PAGE_STYLE)}'; base-uri 'none'; form-action 'none'"
    body = "".join(_bench(bench) for bench in found)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy, quote=True)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n<meta name="referrer" '
        f'content="no-referrer">\n<title>{TITLE}</title>\n<style>{PAGE_STYLE}</style>\n</head>\n<body>\n<main>\n'
        f'<h1>{TITLE}</h1>\n<p class="quiet">{_text(made)}</p>\n{body}</main>\n</body>\n</html>\n'
    )


def _bench(bench: BenchReport) -> str:
    parts = [f"<h2>{_text(heading(bench))}</h2>\n"]
    if bench.sha256:
        parts.append(f'<p class="quiet">questions and labels {_text(bench.sha256[:12])}</p>\n')
    parts += [f'<p class="warn">{_text(one)}</p>\n' for one in warnings(bench)]
    tables = grids(bench)
    parts += [_grid(grid) for grid in tables[:1]]
    figures = "".join(
        f"<figure>{plot.inline()}<figcaption>{_text(plot.caption)}</figcaption></figure>\n"
        for plot in plots(bench)
    )
    parts.append(f'<div class="figures">{figures}</div>\n')
    parts += [_grid(grid) for grid in tables[1:]]
    return "".join(parts) + "<h3>Cards</h3>\n" + "".join(_card(entry) for entry in bench.entries)


def _grid(grid: Grid) -> str:
    head = "".join(f'<th scope="col">{_text(cell)}</th>' for cell in grid.head)
    rows = []
    for row in grid.rows:
        trivial = ' class="trivial"' if row[0].startswith("without looking") else ""
        cells = "".join(f"<td>{_text(cell)}</td>" for cell in row[1:])
        rows.append(f'<tr{trivial}><th scope="row">{_text(row[0])}</th>{cells}</tr>')
    note = f'<p class="quiet">{_text(grid.note)}</p>\n' if grid.note else ""
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<h3>{_text(grid.title)}</h3>\n<div class="wide" tabindex="0">{table}</div>\n{note}'


def _card(entry: Entry) -> str:
    lines = "\n".join(html.escape(one_line(line)) for line in entry.card)
    name = f'{_text(entry.label)} <span class="quiet">{_text(", ".join(entry.runs))}</span>'
    return f'<p>{name}</p>\n<div class="wide"><pre>{lines}</pre></div>\n'


def _text(words: str) -> str:
    return html.escape(one_line(words), quote=True)
