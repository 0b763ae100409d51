"""The snapshot as a web page: one answer, no script, nothing from elsewhere, readable on a phone and in the dark."""

from base64 import b64encode
from hashlib import sha256
from html import escape

from tasks.facts import Row, Table
from tasks.words import moment
from workers.operations.alerts import RUNBOOK, Trouble
from workers.operations.snapshot import Snapshot

REFRESH_SECONDS = 15
# Tables of so many columns have a line of their own.
WIDE_COLUMNS = 5
# Cells of so many letters stay on one line.
SHORT = 20

# Contrast at least 4.5 : 1 in both schemes; what is wrong is also said in words, never by colour alone.
STYLE = """
:root { color-scheme: light dark; --ground: #fff; --text: #1b1f24; --quiet: #57606a; --line: #d0d7de; --card: #f6f8fa;
  --bad: #a40e26; --bad-ground: #ffebe9; --warn: #7a4d00; --warn-ground: #fff4d6; --good: #116329; --good-ground: #dafbe1;
  --link: #0550ae }
@media (prefers-color-scheme: dark) { :root { --ground: #0d1117; --text: #e6edf3; --quiet: #9aa4ae; --line: #30363d;
  --card: #161b22; --bad: #ffa198; --bad-ground: #3c1618; --warn: #f2cc60; --warn-ground: #34290b; --good: #7ee787;
  --good-ground: #12261a; --link: #79c0ff } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; background: var(--ground); color: var(--text);
  font: 16px/1.45 system-ui, sans-serif }
header { display: flex; flex-wrap: wrap; gap: .25rem 1rem; align-items: baseline; justify-content: space-between }
h1 { font-size: 1.4rem; margin: 0 } header p { margin: 0; color: var(--quiet) }
a { color: var(--link) }
h2 { font-size: 1.1rem; margin: 1.5rem 0 .5rem }
.verdict { margin: 1rem 0; padding: .25rem 1rem; border-left: .4rem solid; border-radius: .25rem }
.verdict h2 { margin: .5rem 0 } .verdict ul { margin: .5rem 0; padding-left: 1.2rem }
.verdict li { margin: .35rem 0; overflow-wrap: anywhere }
.good { border-color: var(--good); background: var(--good-ground) } .good h2 { color: var(--good) }
.bad { border-color: var(--bad); background: var(--bad-ground) } .bad h2, .critical { color: var(--bad) }
.warn { border-color: var(--warn); background: var(--warn-ground) } .warn h2, .warning { color: var(--warn) }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: .375rem }
.scroll:focus { outline: 2px solid var(--link) }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: 600; padding: .5rem .75rem; background: var(--card) }
th, td { text-align: left; padding: .35rem .75rem; border-top: 1px solid var(--line); vertical-align: top }
thead th { color: var(--quiet); font-weight: 600; font-size: .875rem }
tbody th { font-weight: 500; white-space: nowrap } .number { text-align: right; white-space: nowrap }
main { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); align-items: start }
@media (min-width: 40rem) { .short { white-space: nowrap } }
@media (max-width: 40rem) { thead { display: none } tr { display: block; border-top: 1px solid var(--line); padding: .35rem 0 }
  tbody th, td, .number { display: block; border: 0; padding: .1rem .75rem; text-align: left; white-space: normal }
  td, td.number { padding-left: 1.75rem } td::before { content: attr(data-name) ": "; color: var(--quiet) } }
.wide { grid-column: 1 / -1; min-width: 0 } .none, .what { color: var(--quiet) }
code { font-size: .875em }
"""
# A page that can load nothing and be framed by no one; its one style is allowed by its hash.
POLICY = (
    f"default-src 'none'; style-src 'sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
)


def page(snapshot: Snapshot, *, refresh: bool = True) -> str:
    """Return the page. `refresh`: it asks again by itself; a link switches that off."""
    troubles = snapshot.troubles()
    worst = "" if not troubles else f"({len(troubles)}!) "
    again = f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">' if refresh else ""
    pause = (
        f'refreshes every {REFRESH_SECONDS} s, <a href="?refresh=off">pause</a>'
        if refresh
        else 'paused, <a href="?">refresh by itself</a>'
    )
    shown = [(table, rows) for table, rows in snapshot.tables() if table.title]
    tables = "\n".join(_table(table, rows, number) for number, (table, rows) in enumerate(shown))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{again}
<title>{worst}Chat workers: status</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>Chat workers</h1>
<p>as of <time datetime="{snapshot.at.isoformat()}">{moment(snapshot.at)}</time>; {pause}</p>
</header>
{_verdict(troubles)}
<main>
{tables}
</main>
</body>
</html>
"""


def _verdict(troubles: list[Trouble]) -> str:
    if not troubles:
        return '<section class="verdict good" aria-label="Summary"><h2>Nothing is wrong.</h2></section>'
    kind = "bad" if any(trouble.severity == "critical" for trouble in troubles) else "warn"
    items = "\n".join(
        f'<li><strong class="{trouble.severity}">{trouble.severity}:</strong> {escape(trouble.sentence)}'
        f' <span class="what">What to do: {RUNBOOK}, <code>{trouble.alert}</code>.</span></li>'
        for trouble in troubles
    )
    said = "One thing is" if len(troubles) == 1 else f"{len(troubles)} things are"
    return f'<section class="verdict {kind}" aria-label="Summary"><h2>{said} wrong:</h2>\n<ul>\n{items}\n</ul></section>'


def _table(table: Table, rows: list[Row], number: int) -> str:
    cells, names = table.cells(rows), table.header()
    if not cells:
        return f'<section><h2>{escape(table.title)}</h2><p class="none">{escape(table.empty)}</p></section>'
    kinds = [_kind([row[column] for row in cells]) for column in range(len(names))]
    header = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for kind, name in zip(kinds, names, strict=True))
    body = "\n".join(
        f'<tr><th scope="row">{escape(row[0])}</th>'
        + "".join(
            f'<td{kind} data-name="{escape(name)}">{escape(cell)}</td>'
            for kind, name, cell in list(zip(kinds, names, row, strict=True))[1:]
        )
        + "</tr>"
        for row in cells
    )
    # A region that scrolls must be reachable by keyboard, and so has a name.
    wide = " wide" if len(names) >= WIDE_COLUMNS else ""
    return f"""<div class="scroll{wide}" role="region" aria-labelledby="t{number}" tabindex="0">
<table>
<caption id="t{number}">{escape(table.title)}</caption>
<thead><tr>{header}</tr></thead>
<tbody>
{body}
</tbody>
</table>
</div>"""


def _kind(cells: list[str]) -> str:
    """Return the class of a column whose cells are all plain numbers, or all short."""
    numbers = all(cell in {"-", ""} or cell.replace(",", "").replace(".", "", 1).rstrip("+").isdigit() for cell in cells)
    if numbers and any(cell not in {"-", ""} for cell in cells):
        return ' class="number"'
    return ' class="short"' if all(len(cell) <= SHORT for cell in cells) else ""
