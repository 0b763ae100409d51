"""Token buckets: how many at once, how they fill again, and that they stay few."""

import pytest

from workers.limits import MOST_KEYS, Buckets, neighbourhood


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_holds_a_minute_and_fills_evenly() -> None:
    clock = Clock()
    buckets = Buckets(60, clock)
    assert [buckets.take("a") for _ in range(60)] == [0.0] * 60
    assert buckets.take("a") == 1.0
    assert buckets.take("b") == 0.0
    clock.now = 1.0
    assert buckets.take("a") == 0.0
    clock.now = 3601.0
    assert sum(buckets.take("a") == 0.0 for _ in range(100)) == 60


def test_a_million_addresses_take_no_more_room_than_ten_thousand() -> None:
    buckets = Buckets(1, Clock())
    for address in range(MOST_KEYS + 500):
        buckets.take(str(address))
    assert len(buckets._levels) == MOST_KEYS
    assert buckets.take(str(MOST_KEYS + 499)) > 0


@pytest.mark.parametrize(
    ("address", "party"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("unix", "unix"),
    ],
)
def test_an_address_stands_for_all_that_one_party_holds(address: str, party: str) -> None:
    assert neighbourhood(address) == party
