"""The faults, by name: what is done to what, for how long at most, and which repeats it may excuse."""

from signal import SIGKILL, SIGTERM

from tests.chaos.faults import broker, database, others, processes, providers
from tests.chaos.faults.base import Excuse, Fault
from tests.chaos.proxy import Mode

K, U = Excuse.KILLED, Excuse.UNANSWERED
PUSH, OTHER = ("notifications",), ("attachments", "housekeeping", "backups")

FAULTS = {
    "kill-worker": Fault("notifications", "SIGKILL of a notifications worker with its children", processes.kill_all(*PUSH), K),
    "kill-parent": Fault(
        "notifications", "SIGKILL of a notifications worker, children orphaned", processes.kill_parent(*PUSH), K
    ),
    "kill-child": Fault("notifications", "SIGKILL of notifications pool children", processes.signal_child(SIGKILL, *PUSH), K),
    "freeze-worker": Fault("notifications", "SIGSTOP of a notifications worker for 2-8 s", processes.freeze(*PUSH)),
    "freeze-past-lease": Fault(
        "notifications",
        "SIGSTOP of a notifications worker that has rows claimed, until others have claimed them",
        processes.freeze_past_lease(*PUSH),
        K,
        alone=True,
    ),
    "freeze-child": Fault("notifications", "SIGSTOP of a notifications pool child for 2-8 s", processes.freeze_child(*PUSH)),
    "terminate-worker": Fault("notifications", "SIGTERM of a notifications worker", processes.terminate(*PUSH)),
    "terminate-child": Fault("notifications", "SIGTERM of notifications pool children", processes.signal_child(SIGTERM, *PUSH)),
    "clock-worker": Fault(
        "notifications", "a notifications worker whose clock is off by up to 2 h", processes.move_clock(*PUSH)
    ),
    "rolling-restart": Fault("notifications", "rolling restart", processes.roll),
    "kill-other": Fault("others", "SIGKILL of the attachments, housekeeping or backups worker", processes.kill_all(*OTHER)),
    "kill-other-child": Fault("others", "SIGKILL of one of their pool children", processes.signal_child(SIGKILL, *OTHER)),
    "freeze-other": Fault("others", "SIGSTOP of one of them for 2-8 s", processes.freeze(*OTHER)),
    "freeze-other-child": Fault("others", "SIGSTOP of one of their pool children for 2-8 s", processes.freeze_child(*OTHER)),
    "terminate-other": Fault("others", "SIGTERM of one of them", processes.terminate(*OTHER)),
    "terminate-other-child": Fault("others", "SIGTERM of their pool children", processes.signal_child(SIGTERM, *OTHER)),
    "clock-other": Fault("others", "one of them whose clock is off by up to 2 h", processes.move_clock(*OTHER)),
    "kill-beat": Fault("beat", "SIGKILL of a beat", processes.kill_all("beat")),
    "freeze-beat": Fault("beat", "SIGSTOP of a beat for 2-8 s", processes.freeze("beat")),
    "terminate-beat": Fault("beat", "SIGTERM of a beat", processes.terminate("beat")),
    "clock-beat": Fault("beat", "a beat whose clock is off by up to 2 h", processes.move_clock("beat")),
    "kill-gateway": Fault("gateway", "SIGKILL of the gateway", processes.kill_all("gateway")),
    "freeze-gateway": Fault("gateway", "SIGSTOP of the gateway for 2-8 s", processes.freeze("gateway")),
    "terminate-gateway": Fault("gateway", "SIGTERM of the gateway", processes.terminate("gateway")),
    "db-kill": Fault("database", "SIGKILL of MariaDB, down for up to 5 s", database.kill, stops_writes=True),
    "db-restart": Fault("database", "restart of MariaDB", database.restart, stops_writes=True),
    "db-pause": Fault("database", "MariaDB hangs for 2-8 s", database.pause, stops_writes=True),
    "db-slow": Fault("database", "MariaDB runs a quarter of the time", database.stutter),
    "db-connections": Fault(
        "database", "max_connections reached, all connections cut", database.exhaust_connections, stops_writes=True
    ),
    "db-cut": Fault("database", "all connections killed, several times", database.cut),
    "db-read-only": Fault("database", "read_only for 2-8 s", database.read_only, stops_writes=True),
    "db-row-locks": Fault("database", "the API holds row locks on up to 1,000 rows for 3-12 s", database.lock_rows),
    "db-deadlocks": Fault("database", "the API's transactions lock rows in random order", database.deadlock),
    "db-alter": Fault("database", "chat_notifications is rebuilt", database.alter, stops_writes=True),
    "db-table-lock": Fault(
        "database",
        "metadata lock on chat_notifications for 2-15 s",
        database.lock_table("chat_notifications"),
        stops_writes=True,
    ),
    "db-lease-lock": Fault(
        "database", "metadata lock on worker_deliveries for 2-15 s", database.lock_table("worker_deliveries")
    ),
    "redis-kill": Fault("broker", "SIGKILL of Redis, back with its data", broker.kill),
    "redis-lose": Fault("broker", "SIGKILL of Redis, back without its data", broker.lose),
    "redis-flush": Fault("broker", "FLUSHALL", broker.flush),
    "redis-full": Fault("broker", "Redis out of memory for 3-8 s", broker.fill),
    "redis-pause": Fault("broker", "Redis hangs for 2-8 s", broker.pause),
    "redis-slow": Fault("broker", "Redis runs a fifth of the time", broker.stutter),
    "push-down": Fault("providers", "all providers refuse connections", providers.network(Mode.CUT), U),
    "push-half-open": Fault(
        "providers", "connections open, nothing passes, for up to 15 s", providers.network(Mode.SILENT, seconds=(4, 15)), U
    ),
    "push-mute": Fault("providers", "requests pass, answers do not", providers.network(Mode.MUTE), U),
    "push-latency": Fault("providers", "the network is slow", providers.network(Mode.SLOW)),
    "push-slow": Fault("providers", "FCM answers after 4 s", providers.answer("slow", latency=4.0, token=providers.PHONES)),
    "push-too-slow": Fault(
        "providers",
        "FCM answers one in five after 12 s, which is too late",
        providers.answer("slow", latency=12.0, token=providers.PHONES, probability=0.2, seconds=(1, 4)),
        U,
    ),
    "push-reset": Fault("providers", "FCM resets connections", providers.answer("reset", probability=0.05), U),
    "push-cut": Fault(
        "providers",
        "FCM accepts, but its answer is cut",
        providers.answer("accepted_cut", probability=0.1, token=providers.PHONES),
        U,
    ),
    "push-vanish": Fault(
        "providers",
        "FCM accepts, then resets the connection",
        providers.answer("accepted_reset", probability=0.02, token=providers.PHONES),
        U,
    ),
    "push-lies": Fault(
        "providers", "FCM answers 200 with a page that is no JSON", providers.answer("not_json", probability=0.3)
    ),
    "push-no-name": Fault("providers", "FCM answers 200 without a message name", providers.answer("no_name", probability=0.3)),
    "push-unavailable": Fault("providers", "FCM answers 503", providers.answer("unavailable")),
    "push-errors": Fault("providers", "FCM answers 500 to a third", providers.answer("internal", probability=0.3)),
    "push-gateway": Fault("providers", "FCM answers 502 with HTML", providers.answer("bad_gateway")),
    "push-throttled": Fault(
        "providers", "FCM answers 429, Retry-After 3 s", providers.answer("quota", retry_after=3, times=1, probability=0.2)
    ),
    "push-denied": Fault("providers", "FCM refuses our credentials", providers.answer("permission_denied")),
    "push-revoked": Fault("providers", "Google forgets the bearers it gave out", providers.revoke),
    "token-lies": Fault(
        "providers", "Google gives a page in a bearer's place", providers.answer("not_json", "oauth", revoking=True)
    ),
    "token-refused": Fault(
        "providers", "Google gives no bearer to our account", providers.answer("account_disabled", "oauth", revoking=True)
    ),
    "apns-unavailable": Fault("apns", "APNs answers 503", providers.answer("ServiceUnavailable", "apns")),
    "apns-expired": Fault("apns", "APNs calls our token expired", providers.answer("ExpiredProviderToken", "apns")),
    "webpush-errors": Fault("webpush", "the browsers' push service answers 500", providers.answer("internal", "webpush")),
    "cut-off-database": Fault("network", "host B has no way to MariaDB", providers.partition("database", mode=Mode.CUT)),
    "lost-database": Fault(
        "network", "host B's connections to MariaDB are half-open", providers.partition("database", mode=Mode.SILENT)
    ),
    "cut-off-broker": Fault("network", "host B has no way to Redis", providers.partition("broker", mode=Mode.CUT)),
    "lost-broker": Fault(
        "network", "host B's connections to Redis are half-open", providers.partition("broker", mode=Mode.SILENT)
    ),
    "cut-off": Fault(
        "network",
        "host B is cut off from MariaDB, Redis, FCM and APNs",
        providers.partition("database", "broker", "provider", mode=Mode.CUT),
        U,
    ),
    "clamd-kill": Fault("clamd", "SIGKILL of clamd, down for up to 5 s", others.kill_clamd),
    "clamd-pause": Fault("clamd", "clamd hangs for 2-8 s", others.pause_clamd),
    "clamd-reload": Fault("clamd", "clamd loads new signatures", others.reload_clamd),
    "s3-pause": Fault("s3", "the object store hangs under a request, for 2-8 s", others.pause_s3),
    "disk-full": Fault("disk", "no room for backups and quarantine for 5-10 s", others.fill_disk),
}
