"""The API's other way to the workers: the client that an API copies, and an account of what came of its calls."""

import importlib.util
from collections.abc import Sequence
from typing import Any

from devstack.folder import PROJECT

CLIENT = PROJECT / "deploy/clients/python/chat_jobs.py"
# Long enough for a gateway that is started again: the call is tried until then.
SECONDS = 4.0


class Gateway:
    """Calls that never fail: what comes of them is counted."""

    def __init__(self, url: str, token: str) -> None:
        spec = importlib.util.spec_from_file_location("chat_jobs", CLIENT)
        assert spec
        assert spec.loader
        self._client: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self._client)
        self._jobs = self._client.HttpJobs(url, token, seconds=SECONDS)
        self.started = 0
        self.missed = 0
        """Calls that nobody answered in time, or with a 503: the sweep does the work."""
        self.refused: list[str] = []
        """What was said to calls that it did not take, though nothing was wrong with them."""

    def notifications(self) -> None:
        self._count(self._jobs.notifications)

    def attachments(self, ids: Sequence[int]) -> None:
        self._count(self._jobs.attachments, ids)

    def _count(self, call: Any, *arguments: Any) -> None:
        try:
            call(*arguments)
            self.started += 1
        except self._client.NotNudgedError:
            self.missed += 1
        except self._client.RefusedError as error:
            self.refused.append(str(error))
