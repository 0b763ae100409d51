"""The doctor's call of the receiver of events, and the secret that it has made."""

from pathlib import Path

from tests.doctor.conftest import Ask, do_as_told, fault, is_well
from tests.events.receiver import SECRETS, receiving


def test_a_receiver_that_takes_what_is_signed_is_well(ask: Ask, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_text("".join(f"whsec_{each}\n" for each in SECRETS))
    with receiving() as receiver:
        own = {"events_url": receiver.url, "events_secret_file": secret}
        assert is_well(ask("events", **own))
        assert (receiver.types(), receiver.unsigned) == (["doctor.test"], [])
        assert [state for state, _ in ask("events", offline=True, **own)] == ["not tried"]
        receiver.status = 401
        assert fault(ask("events", **own)).startswith("EVENTS_URL answered with status 401; see that it")
    assert fault(ask("events", **own)).startswith("EVENTS_URL cannot be reached")


def test_a_secret_that_is_not_there_is_made_as_it_says(ask: Ask, tmp_path: Path) -> None:
    with receiving() as receiver:
        own = {"events_url": receiver.url, "events_secret_file": tmp_path / "secret"}
        do_as_told(fault(ask("events", **own)))
        assert is_well(ask("events", **own))
        assert "are not both set" in fault(ask("events", **(own | {"events_secret_file": None})))
        (tmp_path / "secret").chmod(0o644)
        assert "is open to other users" in fault(ask("events", **own))
    assert [state for state, _ in ask("events", events_url=None)] == ["not configured"]
