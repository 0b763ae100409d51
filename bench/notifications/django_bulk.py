"""fcm-django under Celery: a task for each 500 rows, its personalised bulk send, and one UPDATE for all of them."""

import json
import os
from typing import Any

import django
import pymysql
from celery import Celery
from django.conf import settings
from sqlalchemy.engine import make_url

from bench.notifications import firebase

BATCH = 500

pymysql.install_as_MySQLdb()
pymysql.version_info = (2, 2, 7, "final", 0)  # the mysqlclient that Django asks for
_where = make_url(os.environ.get("DATABASE_URL", "mysql+pymysql://nobody@127.0.0.1/none"))
settings.configure(
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "fcm_django"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.mysql",
            "HOST": _where.host,
            "PORT": _where.port,
            "USER": _where.username,
            "PASSWORD": _where.password,
            "NAME": _where.database,
            "CONN_MAX_AGE": None,
        }
    },
    FCM_DJANGO_SETTINGS={"DELETE_INACTIVE_DEVICES": False},
    USE_TZ=True,
)
django.setup()

from django.db import models  # noqa: E402 - Django's models need its settings
from django.utils import timezone  # noqa: E402
from fcm_django.models import FCMDevice  # noqa: E402

app = Celery("django", broker=os.environ.get("CELERY_BROKER_URL"))
app.conf.update(task_ignore_result=True, worker_prefetch_multiplier=4, task_default_queue="django")


class Notification(models.Model):  # type: ignore[misc]  # Django has no types
    """The shared table, as Django sees it."""

    title: Any = models.CharField(max_length=100)
    body: Any = models.TextField()
    conversation_id: Any = models.IntegerField()
    device_tokens: Any = models.TextField()
    delivery_status: Any = models.CharField(max_length=8)
    is_sent: Any = models.BooleanField()
    sent_at: Any = models.DateTimeField()

    class Meta:
        app_label = "chat"
        managed = False
        db_table = "chat_notifications"


@app.task(name="django.send")
def send(first: int, last: int) -> None:
    """Send the notifications with these ids. Rows of one device share one text: the template data goes by token."""
    firebase.initialize()
    rows = list(Notification.objects.filter(id__range=(first, last)).only("title", "body", "device_tokens"))
    tokens = [(token, row) for row in rows for token in json.loads(row.device_tokens)]
    FCMDevice.objects.send_bulk_personalized_messages(
        "{title}",
        "{body}",
        message_data={token: {"title": row.title, "body": row.body} for token, row in tokens},
        skip_registration_id_lookup=True,
        additional_registration_ids=[token for token, _ in tokens],
    )
    Notification.objects.filter(id__range=(first, last)).update(delivery_status="SENT", is_sent=True, sent_at=timezone.now())
