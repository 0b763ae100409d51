"""Push providers: their keys must be keys, and each must know us when it is sent something harmless."""

import asyncio
from collections.abc import Iterator
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tasks.notifications.apps import push_apps
from tasks.notifications.devices import Device, of_lane
from tasks.notifications.outcome import Kind
from tasks.notifications.payload import Push
from tasks.notifications.providers import Provider, configured_providers
from workers.doctor.places import private
from workers.doctor.report import Answer, Host, ok, wrong

WEBPUSH_SECONDS = 5.0
KEYS = {"fcm": "service_account", "apns": "key_file", "webpush": "key_file"}
HARMLESS = Push("Test", "Test", {}, collapse_key="test", thread="test", badge=None, sound=False, expires_at=0, ttl=0)
# FCM validates without delivering; APNs cannot, but no phone has such a token.
NOBODY = {"fcm": ("nobody", True), "apns": (64 * "0", False)}
FAULTS = {
    Kind.CREDENTIALS: "see that the key was not deleted, and that project, topic and rights are right",
    Kind.UNREACHABLE: "see that it can be reached from here",
    Kind.UNAVAILABLE: "it is at fault itself; ask again later",
    Kind.THROTTLED: "it asks to slow down; ask again later",
    Kind.UNKNOWN: "see that it is the provider who answers there",
}


def push(host: Host) -> Iterator[Answer]:
    """Look at the credentials of every app, and send each provider something harmless."""
    settings = host.settings
    for app in push_apps(settings).values():
        for provider, key in KEYS.items():
            if section := getattr(app, provider):
                path = getattr(section, key)
                private(app.called(provider, key), path, f"install -m 600 YOUR-KEY {path}")
    providers = configured_providers(settings)
    yield ok(f"the keys of {', '.join(providers)} can be read")
    if host.offline:
        yield "not tried", "the providers were not asked (--offline)"
        return
    for lane, made in providers.items():
        if (name := of_lane(lane)["provider"]) in NOBODY:
            yield asyncio.run(_ask(lane, made, *NOBODY[name]))
    if any(of_lane(lane)["provider"] == "webpush" for lane in providers):
        yield from map(_answers, [name for name in settings.webpush_hosts if not name.startswith(".")])


async def _ask(lane: str, provider: Provider, token: str, dry_run: bool) -> Answer:
    device = Device(of_lane(lane)["provider"], token, "")
    outcome = await provider.send(provider.prepare(HARMLESS), device, dry_run=dry_run)
    await provider.close()
    if outcome.kind in FAULTS:
        return wrong(f"{lane}: {outcome.reason}; {FAULTS[outcome.kind]}")
    said = "accepted" if outcome.kind is Kind.SENT else outcome.reason
    return ok(f"{lane} took our credentials, and answered to a token that is nobody's: {said}")


def _answers(name: str) -> Answer:
    """Ask a push service for its front page: any answer shows that it can be reached."""
    try:
        with urlopen(Request(f"https://{name}/", method="HEAD"), timeout=WEBPUSH_SECONDS) as answer:
            status = answer.status
    except HTTPError as error:
        status = error.code
    except OSError as error:
        return wrong(f"webpush: {name} gave no answer: {error}; see that it can be reached from here")
    return ok(f"webpush: {name} can be reached (HTTP {status})")
