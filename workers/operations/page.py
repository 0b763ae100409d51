"""The snapshot as a web page: one answer, no script, nothing from elsewhere, readable on a phone and in the dark."""

from base64 import b64encode
from hashlib import sha256
from html import escape

from tasks.facts import Row, Table, in_words
from tasks.words import moment
from workers.operations.alerts import Trouble
from workers.operations.fleet import VERSION
from workers.operations.snapshot import Snapshot

REFRESH_SECONDS = 15
# Tables of so many columns have a line of their own.
WIDE_COLUMNS = 5
# Cells of so many letters stay on one line.
SHORT = 20
# Of the last hour, with a bar a minute.
PLOTS = {"pushes": "Pushes a minute", "waiting": "Rows that wait", "within_seconds": "95 % accepted within"}
BAR, HEIGHT = 5, 60

# Contrast at least 4.5 : 1 in both schemes; what is wrong is also said in words, never by colour alone.
STYLE = """
:root { color-scheme: light dark; --ground: #fff; --text: #1b1f24; --quiet: #57606a; --line: #d0d7de; --card: #f6f8fa;
  --bad: #a40e26; --bad-ground: #ffebe9; --warn: #7a4d00; --warn-ground: #fff4d6; --good: #116329; --good-ground: #dafbe1;
  --link: #0550ae; --bar: #4a8fdd }
@media (prefers-color-scheme: dark) { :root { --ground: #0d1117; --text: #e6edf3; --quiet: #9aa4ae; --line: #30363d;
  --card: #161b22; --bad: #ffa198; --bad-ground: #3c1618; --warn: #f2cc60; --warn-ground: #34290b; --good: #7ee787;
  --good-ground: #12261a; --link: #79c0ff } }
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 76rem; padding: 1rem; background: var(--ground); color: var(--text);
  font: 16px/1.45 system-ui, sans-serif }
header { display: flex; flex-wrap: wrap; gap: .25rem 1rem; align-items: baseline; justify-content: space-between }
h1 { font-size: 1.4rem; margin: 0 } h2 { font-size: 1.1rem; margin: 1.5rem 0 .5rem } a { color: var(--link) }
header p { margin: 0 } header p, small, figcaption span, .axis, thead th, .none { color: var(--quiet) }
.verdict h2 { margin: 1rem 0 .5rem } .verdict ul { margin: 0; padding: 0; list-style: none }
.verdict li, .good h2 { margin: .5rem 0; padding: .5rem .75rem; border-left: .4rem solid var(--edge); border-radius: .25rem;
  overflow-wrap: anywhere } .verdict strong, .good h2 { color: var(--edge) } .verdict a { white-space: nowrap }
.good h2 { --edge: var(--good); background: var(--good-ground) }
.critical { --edge: var(--bad); background: var(--bad-ground) } .warning { --edge: var(--warn); background: var(--warn-ground) }
.plots, .tables { display: grid; gap: 1rem; margin: 1rem 0; align-items: start; grid-auto-flow: dense }
.plots { grid-template-columns: repeat(auto-fit, minmax(min(100%, 13rem), 1fr)) }
.tables { grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)) } .wide { grid-column: 1 / -1 }
figure, .scroll { margin: 0; border: 1px solid var(--line); border-radius: .375rem; min-width: 0; overflow-x: auto }
figure { padding: .5rem .75rem } figcaption { margin-bottom: .35rem } figcaption span { display: block }
svg { display: block; width: 100%; height: 3.75rem; border-bottom: 1px solid var(--line); fill: var(--bar) }
.axis { display: flex; justify-content: space-between; font-size: .8rem } .scroll:focus { outline: 2px solid var(--link) }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: 600; padding: .5rem .75rem; background: var(--card) }
th, td { text-align: left; padding: .35rem .75rem; border-top: 1px solid var(--line); vertical-align: top }
thead th { font-size: .875rem } tbody th { font-weight: 500; white-space: nowrap }
.number { text-align: right; white-space: nowrap } @media (min-width: 40rem) { .short { white-space: nowrap } }
@media (max-width: 40rem) { thead { display: none } tr { display: block; border-top: 1px solid var(--line); padding: .35rem 0 }
  tbody th, td { display: block; border: 0; padding: .1rem .75rem; white-space: normal; overflow-wrap: anywhere }
  td { display: inline-block } td::before { content: attr(data-name) ": "; color: var(--quiet) } }
.text { max-width: 46rem; overflow-wrap: anywhere } :target { background: var(--warn-ground) } code { font-size: .875em }
"""
# A page that can load nothing and be framed by no one; its one style is allowed by its hash.
POLICY = (
    f"default-src 'none'; style-src 'sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
)


def document(title: str, body: str, head: str = "") -> str:
    """Return a page of the gateway."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
{head}
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""


def page(snapshot: Snapshot, *, refresh: bool = True) -> str:
    """Return the page. `refresh`: it asks again by itself; a link switches that off."""
    troubles = snapshot.troubles()
    worst = "" if not troubles else f"({len(troubles)}!) "
    again = f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">' if refresh else ""
    pause = f'refreshes every {REFRESH_SECONDS} s, <a href="?refresh=off">pause</a>' if refresh else '<a href="?">refresh</a>'
    shown = [(table, table.cells(rows)) for table, rows in snapshot.tables() if table.title]
    tables = "\n".join(_table(table, cells, number) for number, (table, cells) in enumerate(shown) if cells)
    empty = [f"{escape(table.title)}: {escape(table.without_rows())}." for table, cells in shown if not cells]
    counted = snapshot.counted()
    body = f"""<header>
<h1>Chat workers <small>{escape(VERSION)}</small></h1>
<p>as of <time datetime="{snapshot.at.isoformat()}">{moment(snapshot.at)}</time>; {pause}</p>
</header>
{_verdict(troubles)}
<main>
{_plots(counted.hour) if counted else ""}
<div class="tables">
{tables}
</div>
<p class="none">{"<br>".join(empty)}</p>
</main>"""
    return document(f"{worst}Chat workers: status", body, again)


def _verdict(troubles: list[Trouble]) -> str:
    if not troubles:
        return '<section class="verdict good" aria-label="Summary"><h2>Nothing is wrong.</h2></section>'
    items = "\n".join(
        f'<li class="{trouble.severity}"><strong>{trouble.severity}:</strong> {escape(trouble.sentence)}'
        f' <a href="runbook#{trouble.alert.lower()}">What to do</a></li>'
        for trouble in troubles
    )
    said = "One thing is" if len(troubles) == 1 else f"{len(troubles)} things are"
    return f'<section class="verdict" aria-label="Summary"><h2>{said} wrong:</h2>\n<ul>\n{items}\n</ul></section>'


def _plots(hour: list[Row]) -> str:
    """Return the three plots; a minute that nobody knows of has no bar."""
    figures = ""
    for name, title in PLOTS.items():
        values = [minute.get(name) for minute in hour]
        top = max(value or 0 for value in values)
        high = {at: max(value / top * HEIGHT, 1) for at, value in enumerate(values) if value}
        bars = "".join(f"M{at * BAR} {HEIGHT}v-{each:.0f}h{BAR - 1}V{HEIGHT}z" for at, each in high.items())
        said = f"now {in_words(name, values[-1])}, most {in_words(name, top)}" if top else "none"
        figures += f"""<figure>
<figcaption><strong>{title}</strong> <span>{said}</span></figcaption>
<svg viewBox="0 0 {len(values) * BAR} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="{title}: {said}">
<path d="{bars}"/></svg>
<div class="axis"><span>an hour ago</span><span>now</span></div>
</figure>
"""
    return f'<div class="plots">\n{figures}</div>'


def _table(table: Table, cells: list[tuple[str, ...]], number: int) -> str:
    names = table.header()
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
