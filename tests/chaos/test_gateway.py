"""The API's calls of the gateway are counted by what came of them, and the auditor looks at the counts."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast
from urllib.parse import urlsplit

from redis import Redis

from tests.chaos import campaign
from tests.chaos.audit.problem import Sort
from tests.chaos.gateway import Gateway
from tests.chaos.scene import Scene
from tests.gateway.conftest import serving


def test_calls_are_taken_refused_or_missed(environment: dict[str, str], redis: Redis, tmp_path: Path) -> None:
    with serving(environment, tmp_path) as gateway:
        scene = cast(Scene, SimpleNamespace(gateway_port=urlsplit(gateway.url).port))
        good, stranger, idle = Gateway(gateway.url, gateway.token()), Gateway(gateway.url, "cw_x"), Gateway(gateway.url, "cw_y")
        good.attachments([1, 2])
        stranger.notifications()
        assert (good.started, good.missed, good.refused) == (1, 0, [])
        assert redis.llen("attachments") >= 2  # each is repeated
        assert campaign.gateway(scene, [good]) == []
        assert {problem.sort for problem in campaign.gateway(scene, [stranger])} == {Sort.WRONG, Sort.STUCK}
        assert [problem.what for problem in campaign.gateway(scene, [good, idle])] == ["the gateway has started nothing"]
    good.notifications()
    assert (good.started, good.missed) == (1, 1)
    assert [problem.what for problem in campaign.gateway(scene, [good])] == ["the gateway does not answer"]
