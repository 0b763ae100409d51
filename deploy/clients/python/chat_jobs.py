"""Tell the chat workers that there is work: one file to copy into your project, over HTTP or through Celery.

    from chat_jobs import HttpJobs, JobsError

    jobs = HttpJobs("http://127.0.0.1:8080", token)   # needs nothing but Python 3.11
    jobs = CeleryJobs("redis://127.0.0.1:6379/0")     # needs celery[redis] and the right to write to Redis

    connection.commit()                               # row first: the workers find it in MySQL
    try:
        jobs.notifications()                          # after inserting into chat_notifications
        jobs.attachments([12, 13])                    # after inserting into message_attachments
        jobs.withdrawals(5, 1)                        # after user 5 has read something in conversation 1
    except JobsError as error:                        # the user's request goes on
        log.error("the sweep will do it: %s", error)  # 5 s later (notifications) or 10 s (attachments)

Both have the same methods, which return the ids of the tasks; a call takes `seconds` at most (HTTP) or about one (Celery), but
for the time in which the system looks up the host's name.
"""

import http.client
import io
import json
import random
import re
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast
from urllib.parse import urlsplit


class JobsError(Exception):
    """A call came to nothing. Nothing is lost by it: the workers' sweep finds the rows. Log it, and go on."""


class NotNudgedError(JobsError):
    """Nobody was told, for now: the gateway or Redis cannot be reached, or has too much to do."""


class RefusedError(JobsError):
    """The request is wrong, and would be the next time: the token, the URL or an argument. The text is the gateway's."""


_Answer = tuple[int, http.client.HTTPMessage, dict[str, Any]]


def _left(ends_at: float) -> float:
    left = ends_at - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time for this call is over")
    return left


class _Incoming(io.RawIOBase):
    """What a socket receives until a moment, however slowly it comes: a socket's own timeout begins anew with each byte."""

    def __init__(self, line: socket.socket, ends_at: float) -> None:
        self._line = line
        self._ends_at = ends_at

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._line.settimeout(_left(self._ends_at))
        return self._line.recv_into(buffer)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)


class HttpJobs:
    """The gateway's client. A call tries again within its `seconds`; a job that is started twice by that does no harm.

    Safe to share between threads; each call has a connection of its own.
    """

    def __init__(self, url: str, token: str, *, seconds: float = 2.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"{url!r} is no URL of the gateway; expected http://host:8080")
        self._token = token.strip()
        if not re.fullmatch("[!-~]+", self._token):
            raise ValueError("the token is empty, or holds a blank or a sign that no header can carry")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._host, self._port = parts.hostname, parts.port or (443 if self._tls else 80)
        self._prefix = parts.path.rstrip("/")
        self._seconds = seconds

    def notifications(self) -> list[str]:
        """Have the PENDING rows of chat_notifications sent now. Raise NotNudgedError or RefusedError."""
        return self._start("notifications", {})

    def attachments(self, attachment_ids: Sequence[int]) -> list[str]:
        """Have 1 to 100 rows of message_attachments scanned now. Raise NotNudgedError or RefusedError."""
        return self._start("attachments", {"attachment_ids": list(attachment_ids)})

    def withdrawals(self, recipient_id: int, conversation_id: int) -> list[str]:
        """Take off phones what was read or deleted; no sweep does it. Raise NotNudgedError or RefusedError."""
        return self._start("withdrawals", {"recipient_id": recipient_id, "conversation_id": conversation_id})

    def _start(self, job: str, body: Mapping[str, Any]) -> list[str]:
        ends_at = time.monotonic() + self._seconds
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        pause = 0.1
        while True:
            try:
                status, got, answer = self._post(f"{self._prefix}/v1/jobs/{job}", json.dumps(body), headers, ends_at)
            except (OSError, http.client.HTTPException) as error:
                status, got, answer = 0, http.client.HTTPMessage(), {"detail": f"{type(error).__name__}: {error}"}
            ids, detail = answer.get("task_ids"), answer.get("detail")
            if status == 202 and isinstance(ids, list) and all(isinstance(each, str) for each in ids):
                return ids
            why = f"{status or 'no answer'}: {detail if isinstance(detail, str) else 'this is no answer of the gateway'}"
            # A 429 with a challenge follows many 401s: the token will be as wrong in a minute.
            passes = status in {0, 408} or status >= 500 or (status == 429 and "WWW-Authenticate" not in got)
            if not passes:
                raise RefusedError(why)
            retry_after = got.get("Retry-After", "")
            wait = max(float(retry_after) if retry_after.isdecimal() else 0.0, pause * random.uniform(0.5, 1.5))
            if time.monotonic() + wait >= ends_at:
                raise NotNudgedError(why)
            time.sleep(wait)
            pause *= 2

    def _post(self, path: str, body: str, headers: Mapping[str, str], ends_at: float) -> _Answer:
        with self._connected(ends_at) as line:
            connection = http.client.HTTPConnection(self._host, self._port)
            if self._tls:
                connection = http.client.HTTPSConnection(self._host, self._port, context=self._tls)
            connection.sock = line
            line.settimeout(_left(ends_at))
            connection.request("POST", path, body, headers)
            response = http.client.HTTPResponse(cast("socket.socket", _Incoming(line, ends_at)), method="POST")
            response.begin()
            content = response.read(1_000_000)
            if response.length:
                raise http.client.IncompleteRead(content)
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):  # a proxy's error page
            answer = {}
        return response.status, response.headers, answer if isinstance(answer, dict) else {}

    def _connected(self, ends_at: float) -> socket.socket:
        addresses = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
        error = OSError("the host has no address")
        for untried, (family, kind, protocol, _, address) in zip(range(len(addresses), 0, -1), addresses, strict=True):
            line = socket.socket(family, kind, protocol)
            try:
                line.settimeout(_left(ends_at) / untried)
                line.connect(address)
                line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self._tls:
                    line.settimeout(_left(ends_at))
                    line = self._tls.wrap_socket(line, server_hostname=self._host)
            except OSError as reason:
                line.close()
                error = reason
            else:
                return line
        raise error


class CeleryJobs:
    """The broker's client: it knows names of tasks and queues, and no code of the workers. Make one per process and keep it."""

    def __init__(self, broker_url: str, *, transport_options: Mapping[str, Any] | None = None) -> None:
        from celery import Celery

        # Not the current app: a project with a Celery of its own keeps it.
        self._celery = Celery("chat-jobs", broker=broker_url, set_as_current=False)
        self._celery.conf.update(
            task_serializer="json",
            task_ignore_result=True,
            result_backend=None,
            # A Redis that is down costs a web request a second, not the minutes of Celery's defaults.
            broker_connection_timeout=0.5,
            broker_transport_options={
                "socket_connect_timeout": 0.5,
                "socket_timeout": 0.5,
                "retry_on_timeout": False,
                # One more try to connect, at once; kombu would wait two seconds before it.
                "max_retries": 1,
                "interval_start": 0,
                "socket_keepalive": True,
                # The shortest of all apps on one Redis wins: this is the workers'.
                "visibility_timeout": 12_600,
                **(transport_options or {}),
            },
        )

    def notifications(self) -> list[str]:
        """Have the PENDING rows of chat_notifications sent now. Raise NotNudgedError."""
        return [self._send("tasks.notifications.drain", "notifications", [], expires=60)]

    def attachments(self, attachment_ids: Sequence[int]) -> list[str]:
        """Have rows of message_attachments scanned now. Raise NotNudgedError, after which some may have been called for."""
        return [self._send("tasks.attachments.scan", "attachments", [each], expires=600) for each in attachment_ids]

    def withdrawals(self, recipient_id: int, conversation_id: int) -> list[str]:
        """Take off phones what was read or deleted; no sweep does it. Raise NotNudgedError."""
        return [self._send("tasks.notifications.withdraw", "notifications", [recipient_id, conversation_id], expires=60)]

    def _send(self, task: str, queue: str, args: list[int], *, expires: int) -> str:
        from kombu.exceptions import OperationalError

        try:
            sent = self._celery.send_task(task, args, queue=queue, expires=expires, ignore_result=True, retry=False)
        except (OperationalError, OSError) as error:
            raise NotNudgedError(f"Redis does not take the message: {error}") from error
        return str(sent.id)
