"""firebase-admin's `send_each` in batches of 500 between this project's own claim and settle, under Celery."""

import os
import uuid

from celery import Celery
from firebase_admin import messaging

from bench.notifications import firebase
from db.engine import get_engine
from tasks.notifications.devices import read_devices
from tasks.notifications.journal import Attempt
from tasks.notifications.ledger import Ledger
from tasks.notifications.outcome import Kind, Outcome
from tasks.notifications.queue import Queue
from tasks.notifications.settlement import settle

BATCH = 500

app = Celery("batches", broker=os.environ.get("CELERY_BROKER_URL"))
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=1, task_default_queue="batches")


@app.task(name="batches.drain")
def drain() -> None:
    """Send until nothing is left. Every row has one device."""
    firebase.initialize()
    queue = Queue(get_engine(), lease=uuid.uuid4().hex)
    while notifications := queue.claim_fresh(BATCH):
        devices = [read_devices(notification.device_tokens) for notification in notifications]
        messages = [
            firebase.message(
                {"id": n.id, "title": n.title, "body": n.body, "conversation_id": n.conversation_id}, d.usable[0].token
            )
            for n, d in zip(notifications, devices, strict=True)
        ]
        attempts = []
        for notification, found, response in zip(notifications, devices, messaging.send_each(messages).responses, strict=True):
            ledger = Ledger()
            outcome = Outcome(Kind.SENT) if response.success else Outcome(Kind.UNAVAILABLE, str(response.exception))
            ledger.record(found.usable[0].key, outcome, notification.created_at, notification.expires_at)
            settlement = settle(notification, found, ledger)
            attempts.append(Attempt(settlement, notification.recipient_id, ((found.usable[0], outcome),)))
        queue.settle(attempts)
