"""Sentry, if SENTRY_DSN is set: a report for each task that failed and each error logged, without content or secrets."""

import re
import sys
from typing import Any

from settings import ConfigurationError, Settings
from tasks.deadline import Deadline
from tasks.http import MOST_ANSWER_BYTES, POOLS

FLUSH_SECONDS = 2.0
REPORT_SECONDS = 30.0
# What follows may be a token, a key or somebody's words: long runs without a blank, and the password in a URL.
OPAQUE = re.compile(r"[\w\-:+/=.%]{48,}")
LOGIN = re.compile(r"//[^/\s@]*@")
# Where an event keeps what a message or a request brought along.
LEFT_OUT = ("request", "user", "extra", "breadcrumbs", "modules")


def start(settings: Settings) -> None:
    """Begin to report, before the pool forks: Celery's tracers are patched once. Raise ConfigurationError if not installed."""
    if settings.sentry_dsn is None:
        return
    try:
        import sentry_sdk
        from sentry_sdk.integrations.celery import CeleryIntegration
        from sentry_sdk.transport import HttpTransport
    except ImportError:
        raise ConfigurationError(
            "SENTRY_DSN is set, but Sentry is not installed: pip install --require-hashes -r requirements/telemetry.txt"
        ) from None

    class Transport(HttpTransport):
        """Reads an answer for so long, and so much of it: Sentry's own would keep one without end."""

        def _make_pool(self) -> Any:
            pool = super()._make_pool()
            pool.pool_classes_by_scheme = POOLS
            return pool

        def _request(self, method: str, endpoint_type: Any, body: Any, headers: Any) -> Any:
            with Deadline(REPORT_SECONDS):
                url = self._auth.get_api_url(endpoint_type)
                answer = self._pool.request(method, url, body=body, headers=headers, preload_content=False, redirect=False)
                answer.read(MOST_ANSWER_BYTES)
                answer.close()
            return answer

    sentry_sdk.init(
        transport=Transport,
        dsn=settings.sentry_dsn.get_secret_value(),
        send_default_pii=False,
        include_local_variables=False,
        max_request_body_size="never",
        before_send=scrub,
        trace_propagation_targets=[],  # else whoever is asked over HTTP is told the DSN's key
        # A failed task is one report: celery's, not the log line's too.
        integrations=[CeleryIntegration(propagate_traces=False)],
    )


def flush() -> None:
    """Send what has gathered, if anything reports at all."""
    if sdk := sys.modules.get("sentry_sdk"):
        sdk.flush(FLUSH_SECONDS)


def scrub(event: Any, _hint: Any) -> Any:
    """Return the event without values that came in from outside, and without anything that may be a secret in its texts."""
    for key in LEFT_OUT:
        event.pop(key, None)
    for exception in event.get("exception", {}).get("values", []):
        exception["value"] = _clean(str(exception.get("value", "")))
    entry = event.get("logentry")
    if entry:
        entry.pop("params", None)
        entry.update({key: _clean(str(entry[key])) for key in ("message", "formatted") if entry.get(key)})
    return event


def _clean(text: str) -> str:
    return OPAQUE.sub("[…]", LOGIN.sub("//[…]@", text))
