"""The doctor: the table of dependencies, which processes of the Procfile need each, and the function that looks at it.

`report` asks beside each other; the other modules each answer, by `ok` or by what is wrong and how to mend it.
"""

from tasks.jobs import QUEUES
from workers.doctor.database import database
from workers.doctor.jobs import backups, bucket, clamd, events, passphrase, quarantine, uploads
from workers.doctor.places import environment
from workers.doctor.push import push
from workers.doctor.redis import redis
from workers.doctor.report import Question

QUESTIONS = (
    Question("environment", environment),
    Question("database", database, (*QUEUES, "gateway")),
    Question("redis", redis),
    Question("push", push, ("notifications",)),
    Question("clamd", clamd, ("attachments",), "attachments_url", "nothing is scanned"),
    Question("uploads", uploads, ("attachments",), "attachments_url", "nothing is scanned"),
    Question("quarantine", quarantine, ("attachments",), "attachments_quarantine_url", "what is infected stays, blocked"),
    Question("events", events, ("events",), "events_url", "nobody is called with events"),
    Question("backups", backups, ("backups",), "backup_dir", "nothing is backed up from here"),
    Question("passphrase", passphrase, ("backups",), "backup_passphrase_file", "nothing is sealed, signed or shipped"),
    Question("bucket", bucket, ("backups",), "backup_s3_uri", "backups stay on this host"),
)  # fmt: skip
