"""The app is the same whichever thread imports it."""

import os
import subprocess
import sys

from devstack.folder import PROJECT

IMPORTED_IN_A_THREAD = """
from threading import Thread

def load():
    import workers.app

loading = Thread(target=load)
loading.start()
loading.join()

from celery import current_app

current_app.loader.import_default_modules()
print(current_app.main, current_app.amqp.router.route({}, "tasks.notifications.drain")["queue"].name)
"""


def test_every_thread_has_the_app_that_one_imported(environment: dict[str, str]) -> None:
    command = [sys.executable, "-c", IMPORTED_IN_A_THREAD]
    told = subprocess.run(command, cwd=PROJECT, env={**os.environ, **environment}, check=True, capture_output=True, text=True)
    assert told.stdout.split() == ["chat-workers", "notifications"]


def test_redbeat_uses_the_client_that_the_app_gives_it(environment: dict[str, str]) -> None:
    """By TLS and sentinels as our own; its own would need the password where `celery report` shows it."""
    from redbeat.schedulers import get_redis

    from workers.app import app

    assert get_redis(app) is vars(app)["redbeat_redis"]
    assert get_redis(app).ping()
