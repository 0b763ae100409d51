"""The obvious Celery app: a task a row, `messaging.send` for each device, one UPDATE; tuned as its author would tune it."""

import json
import os
from functools import cache
from typing import Any

import pymysql
from celery import Celery
from firebase_admin import messaging
from sqlalchemy.engine import make_url

from bench.notifications import firebase

app = Celery("obvious", broker=os.environ.get("CELERY_BROKER_URL"))
# Early acknowledgement, no results and a prefetch that hides the broker: the fast settings.
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=32, task_default_queue="obvious")

SELECT = "SELECT id, conversation_id, title, body, device_tokens FROM chat_notifications WHERE id = %s"
UPDATE = "UPDATE chat_notifications SET delivery_status = 'SENT', is_sent = 1, sent_at = NOW() WHERE id = %s"


@cache
def _database() -> Any:
    where = make_url(os.environ["DATABASE_URL"])
    return pymysql.connect(
        host=where.host,
        port=where.port or 3306,
        user=where.username,
        password=where.password or "",
        database=where.database,
        autocommit=True,
        cursorclass=pymysql.cursors.DictCursor,
    )


@app.task(name="obvious.send")
def send(notification_id: int) -> None:
    """Send one notification."""
    firebase.initialize()
    with _database().cursor() as cursor:
        cursor.execute(SELECT, (notification_id,))
        row = cursor.fetchone()
        for token in json.loads(row["device_tokens"]):
            messaging.send(firebase.message(row, token))
        cursor.execute(UPDATE, (notification_id,))
