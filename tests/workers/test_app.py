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
