"""The receiver of events: there must be a secret, and it must take what that signs."""

import time
from collections.abc import Iterator
from datetime import datetime

from tasks.events.deliver import Receiver
from tasks.events.queue import Event
from workers.doctor.places import private
from workers.doctor.report import Answer, Host, ok, wrong


def events(host: Host) -> Iterator[Answer]:
    """Look at EVENTS_SECRET_FILE, and have the receiver take an event of no meaning."""
    if path := host.settings.events_secret_file:
        private("EVENTS_SECRET_FILE", path, f"(umask 077; echo whsec_$(openssl rand -base64 32) > {path})")
    receiver = Receiver(host.settings)
    if host.offline:
        yield "not tried", "the receiver was not called (--offline)"
    elif refused := receiver.send(Event(0, time.time_ns() // 1000, "doctor.test", "{}", datetime.now(), 0)):  # noqa: DTZ005
        yield wrong(f"{refused.why}; see that it is reached, knows the secret, and answers 2xx to a type that it does not know")
    else:
        yield ok("EVENTS_URL took an event of the type doctor.test")
