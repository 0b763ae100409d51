"""The push apps: each one's credentials, Android style, privacy and templates, read from PUSH_APPS_FILE and checked at start.

The variables for a single app are the app `default`; a file with others leaves them as they are.
"""

import hashlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from settings import ConfigurationError, Settings, VapidSubject
from tasks.notifications.devices import APP_NAME, DEFAULT_APP
from tasks.notifications.notification import NotificationType
from tasks.notifications.templates import ANDROID, FIELDS, PLACEHOLDERS, ProviderName, faults, merge

# Of one type and provider with these words in it: with one for ALL there is room for a title and a body.
MOST_TEMPLATE_BYTES = 700
LONGEST = dict.fromkeys(PLACEHOLDERS, "x" * 36) | {"title": "x" * 100, "body": ""}


class Section(BaseModel):
    """A table of the file, in which an unknown key is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class FcmSection(Section):
    """`[APP.fcm]`."""

    service_account: Path
    project: str | None = None
    """Of a workload identity, whose file names none."""
    channel_id: str | None = None
    """Android's notification channel; a template may name another by type."""
    silent_channel_id: str | None = None
    """The channel for recipients who want no sound: from Android 8 on the channel decides."""


class ApnsSection(Section):
    """`[APP.apns]`."""

    key_file: Path
    key_id: str
    team_id: str
    topic: str
    environment: Literal["production", "sandbox"] = "production"
    """Of devices that name none."""


class WebPushSection(Section):
    """`[APP.webpush]`."""

    key_file: Path
    subject: VapidSubject


VARIABLES = {
    "fcm": {"service_account": "GOOGLE_APPLICATION_CREDENTIALS"},
    "apns": {key: f"APNS_{key.upper()}" for key in ApnsSection.model_fields},
    "webpush": {key: f"VAPID_{key.upper()}" for key in WebPushSection.model_fields},
}
"""The variables of the app `default`, by the table and key of an app in the file."""


class App(Section):
    """One app: a table of the file, or `default` as the variables define it."""

    name: str = DEFAULT_APP
    file: Path | None = None
    """None where the variables define it."""
    fcm: FcmSection | None = None
    apns: ApnsSection | None = None
    webpush: WebPushSection | None = None
    android: Literal["data", "notification"] = "notification"
    """`data`: the app's own code shows a push; `notification`: Android does, and collapses what comes while it is offline."""
    content: Literal["full", "sender", "none"] = "full"
    """What the lock screen and the provider get to see: title and body, the title alone, or neither."""
    hidden: str = "New message"
    """Stands in the place of what is not shown."""
    withdraw: frozenset[ProviderName] = frozenset()
    """The providers whose devices are told what was read elsewhere or deleted."""
    templates: dict[Literal["ALL", NotificationType], dict[ProviderName, dict[str, Any]]] = {}

    def complete(self, message: dict[str, Any], provider: ProviderName, words: Mapping[str, str]) -> None:
        """Put into a provider's message what the app adds: the template of ALL, and over it that of the words' type."""
        for name in ("ALL", words.get("type")):
            merge(message, self.templates.get(name, {}).get(provider, {}), words)  # type: ignore[call-overload]

    @model_validator(mode="after")
    def _known(self) -> Self:
        for name, by_provider in self.templates.items():
            for provider, table in by_provider.items():
                fields = dict(FIELDS[provider])
                if self.android == "data" and provider == "fcm":
                    # Any of these makes Google collapse the message.
                    del fields["notification"]
                    fields["android"] = {key: field for key, field in ANDROID.items() if key != "notification"}
                where = f"{self.name}.templates.{name}.{provider}"
                for fault in faults(table, fields, where):
                    raise ValueError(fault)
                if len(orjson.dumps(merge({}, table, LONGEST))) > MOST_TEMPLATE_BYTES:
                    why = f"more than {MOST_TEMPLATE_BYTES} bytes once filled, which leaves too little of 4096 to a push"
                    raise ValueError(f"{where} has {why}")
        return self

    def called(self, *key: str) -> str:
        """Return the name of a key for an operator: its variable, or the file with table and key."""
        return f"PUSH_APPS_FILE ({self.file}): {'.'.join((self.name, *key))}" if self.file else VARIABLES[key[0]][key[1]]


def fingerprint(*words: str) -> str:
    """Return eight hex digits that stand for these words."""
    return hashlib.sha256(" ".join(words).encode()).hexdigest()[:8]


DEFAULT = App()
"""As the variables define it, or with everything as it was."""


def push_apps(settings: Settings) -> dict[str, App]:
    """Return each app. Raise ConfigurationError naming the variable, or file, table and key."""
    path = settings.push_apps_file
    tables = _read(path) if path else {}
    given = {
        name: {key: value for key, variable in keys.items() if (value := getattr(settings, variable.lower()))}
        for name, keys in VARIABLES.items()
    }
    default = {name: table for name, table in given.items() if table.keys() - {"environment"}}
    named = [VARIABLES[name][key] for name, table in default.items() for key in table]
    if named and DEFAULT_APP in tables:
        raise ConfigurationError(
            f"{named[0]} is set, and PUSH_APPS_FILE ({path}) has the app {DEFAULT_APP} too; keep one of them"
        )
    apps = {DEFAULT_APP: _app(None, DEFAULT_APP, default)} if named or path is None else {}
    if apps and apps[DEFAULT_APP].fcm is None:  # it is what a plain token means
        raise ConfigurationError("GOOGLE_APPLICATION_CREDENTIALS is not set; it names the service-account JSON for FCM")
    return apps | {name: _app(path, name, table) for name, table in tables.items()}


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"PUSH_APPS_FILE names an unusable file: {path}: {error}") from None


def _app(path: Path | None, name: str, table: Any) -> App:
    if not APP_NAME.fullmatch(name) or not isinstance(table, dict):
        fault = "is no app; expected a table with a name of up to 24 of a-z, 0-9, _ and -"
        raise ConfigurationError(f"PUSH_APPS_FILE ({path}): {name} {fault}")
    try:
        return App(**table | {"name": name, "file": path})
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise ConfigurationError(f"PUSH_APPS_FILE ({path}): {first['ctx']['error']}") from None
        words = {"missing": f"is not set, and {first['loc'][0]} needs it", "extra_forbidden": "is no key that is known"}
        message = words.get(first["type"], first["msg"].removeprefix("Value error, "))
        where = App.model_construct(name=name, file=path).called(*map(str, first["loc"]))
        raise ConfigurationError(f"{where} {message[0].lower()}{message[1:]}") from None
