"""Alerts: a fact's threshold as a sentence about the rows that are beyond it, and as a rule for Prometheus."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tasks.facts import PREFIX, Alert, AnyFact, Counter, Histogram, Row, in_words

RUNBOOK = "docs/runbook.md"
MOST_NAMES = 5

# The one alert that nobody but Prometheus can judge.
GATEWAY_DOWN = Alert("ChatWorkersGatewayDown", "critical", "The gateway answers no scrape: no other alert can fire", minutes=2)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong now; `alert` names the rule in deploy/prometheus/alerts.yml and the section of docs/runbook.md."""

    alert: str
    severity: str
    sentence: str
    minutes: int = 0
    """For how long Prometheus waits with it: the shorter, the more urgent."""


def troubles(fact: AnyFact, rows: Iterable[Row]) -> Iterator[Trouble]:
    """Yield a trouble for each sentence that the fact's alert has to say; rows of which it says the same share one."""
    alert = fact.alert
    if alert is None:
        return
    together: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if alert.fires(fact.name, row):
            value = in_words(fact.name, row[fact.name]) if "{value}" in alert.says else ""
            detail = alert.detail.format_map({name: in_words(name, cell) for name, cell in row.items()})
            together.setdefault((value, detail), []).append(row)
    for (value, detail), found in together.items():
        names = {label: _listed([str(row[label]) for row in found]) for label in fact.labels or ()}
        sentence = alert.says.format(value=value, **names) + detail
        yield Trouble(alert.name, alert.severity, sentence.rstrip(".") + ".", alert.minutes)


def _listed(names: list[str]) -> str:
    names = list(dict.fromkeys(names))
    more = len(names) - MOST_NAMES
    return ", ".join(names[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def rules(facts: Iterable[AnyFact]) -> str:
    """Return deploy/prometheus/alerts.yml."""
    absent = f"absent({PREFIX}collector_up)"
    made = [_rule(GATEWAY_DOWN, absent, "It is down, unreachable, or refuses Prometheus.", {})]
    for fact in facts:
        if alert := fact.alert:
            made.append(_rule(alert, _expression(fact, alert), fact.help, _templates(fact, alert)))
    return HEAD + "\n".join(made)


HEAD = """\
# Prometheus's rules for the chat workers, made by `chat-workers alerts`.
# What each means and what to do: docs/runbook.md, a section by the alert's name.
groups:
  - name: chat-workers
    rules:
"""


def _rule(alert: Alert, expression: str, description: str, templates: dict[str, str]) -> str:
    lasting = f"        for: {alert.minutes}m\n" if alert.minutes else ""
    return f"""\
      - alert: {alert.name}
        expr: {expression}
{lasting}        labels: {{severity: {alert.severity}}}
        annotations:
          summary: {json.dumps(alert.says.format(**templates))}
          description: {json.dumps(description)}
          runbook_url: {RUNBOOK}#{alert.name.lower()}
"""


def _expression(fact: AnyFact, alert: Alert) -> str:
    chosen = [f'{label}{"=~" if len(values) > 1 else "="}"{"|".join(values)}"' for label, values in alert.where.items()]
    series = PREFIX + fact.name + {Counter: "_total", Histogram: "_bucket"}.get(type(fact), "")
    series += f"{{{','.join(chosen)}}}" if chosen else ""
    labels = _kept(fact, alert)
    by = f" by ({', '.join(labels)}) " if labels else ""
    if isinstance(fact, Histogram):
        value = f"histogram_quantile(0.95, sum by ({', '.join([*labels, 'le'])}) (rate({series}[{alert.window}m])))"
    elif isinstance(fact, Counter):
        value = f"sum{by}(increase({series}[{alert.window}m]))"
    else:
        # Of several gateways the one that sees it worst.
        value = f"{'min' if alert.above is None else 'max'}{by}({series})"
    threshold = f"> {alert.above}" if alert.above is not None else f"< {alert.below}"
    return f"{value} {threshold}" + (f" and on () max({PREFIX}{alert.given}) == 1" if alert.given else "")


def _kept(fact: AnyFact, alert: Alert) -> list[str]:
    """Return the labels that an alert has: those of the fact but for one that can only have one value."""
    return [label for label in fact.labels or () if len(alert.where.get(label, ())) != 1]


def _templates(fact: AnyFact, alert: Alert) -> dict[str, str]:
    """Return Prometheus's templates for {value} and the labels of a sentence."""
    form = {"_seconds": "humanizeDuration", "_ratio": "humanizePercentage"}
    unit = next((name for suffix, name in form.items() if fact.name.endswith(suffix)), "humanize")
    return {
        "value": f"{{{{ $value | {unit} }}}}",
        **{label: f"{{{{ $labels.{label} }}}}" for label in _kept(fact, alert)},
        **{label: values[0] for label, values in alert.where.items() if len(values) == 1},
    }
