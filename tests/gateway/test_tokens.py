"""Who is let in: tokens from a file of hashes, several at once, refused all alike."""

import hmac
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from settings import get_settings
from workers.cli import cli
from workers.gateway import tokens
from workers.gateway.tokens import NOBODY, Token, TokensError, identify

from .conftest import Gateway, Queue

NOW = datetime(2026, 11, 22, tzinfo=UTC)
YESTERDAY, TOMORROW = datetime.now(UTC) - timedelta(days=1), datetime.now(UTC) + timedelta(days=1)


def test_missing_wrong_and_expired_tokens_are_refused_in_the_same_words(gateway: Gateway, notifications: Queue) -> None:
    expired = gateway.token(expires=YESTERDAY)
    answers = [gateway.post("notifications", token) for token in (None, "cw_wrong", "x" * 5000, expired)]
    answers.append(gateway.post("notifications", None, headers={"Authorization": "Basic dXNlcjpwYXNz"}))
    answers.append(gateway.post("notifications", None, headers={"Authorization": "Bearer"}))
    answers.append(gateway.post("notifications", None, headers=httpx.Headers({"Authorization": "Bearer ä"}, "latin-1")))
    answers.append(gateway.post("no-such-job", "cw_wrong"))
    assert {(answer.status_code, answer.text, answer.headers["WWW-Authenticate"]) for answer in answers} == {
        (401, answers[0].text, 'Bearer realm="chat-workers"')
    }
    assert notifications.messages() == []


def test_every_line_is_compared_in_constant_time_whatever_is_presented(monkeypatch: pytest.MonkeyPatch) -> None:
    """A measurement would only be noise; the way that is taken is the same, and made of comparisons that are constant."""
    compared: list[tuple[int, int]] = []

    def counting(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return hmac.compare_digest(one, other)

    monkeypatch.setattr(tokens, "compare_digest", counting)
    names = {"first": NOW + timedelta(days=1), "expired": NOW, "last": NOW + timedelta(days=1)}
    lines = tuple(Token(name, sha256(name.encode()).digest(), expires) for name, expires in names.items())
    found = {}
    for presented in ("", "wrong", "x" * 5000, *names):
        compared.clear()
        found[presented[:5]] = identify(lines, presented, NOW)
        assert compared == [(32, 32)] * 3
    assert found == {
        "": (NOBODY, False),
        "wrong": (NOBODY, False),
        "xxxxx": (NOBODY, False),
        "first": (lines[0], True),
        "expir": (lines[1], False),
        "last": (lines[2], True),
    }


def test_a_token_may_be_changed_for_another_without_a_gap(gateway: Gateway) -> None:
    old = tokens.issue(gateway.tokens_file, "rotated-1")
    assert gateway.post("notifications", old).status_code == 202
    new = tokens.issue(gateway.tokens_file, "rotated-2", expires=TOMORROW)
    assert [gateway.post("notifications", token).status_code for token in (old, new)] == [202, 202]
    tokens.revoke(gateway.tokens_file, "rotated-1")
    assert [gateway.post("notifications", token).status_code for token in (old, new)] == [401, 202]


def test_a_token_starts_only_the_jobs_that_it_is_for(gateway: Gateway) -> None:
    token = gateway.token(jobs=frozenset({"attachments"}))
    assert gateway.post("attachments", token, {"attachment_id": 1}).status_code == 202
    refused = gateway.post("notifications", token)
    assert (refused.status_code, refused.json()["title"]) == (403, "Forbidden")


def test_the_log_names_tokens_and_never_shows_one(gateway: Gateway) -> None:
    token = tokens.issue(gateway.tokens_file, "named-in-the-log")
    task = gateway.post("notifications", token).json()["task_id"]
    gateway.post("notifications", "cw_wrong-and-secret")
    written = gateway.log.read_text()
    assert "named-in-the-log" in written
    assert task in written
    assert token not in written
    assert "wrong-and-secret" not in written


def test_without_a_usable_file_nobody_is_let_in(another: Callable[..., Gateway]) -> None:
    gateway = another(GATEWAY_REFUSALS_PER_MINUTE="5")
    missing = gateway.post("notifications", "any")
    assert missing.status_code == 503
    assert missing.headers["Retry-After"]

    token = gateway.token()
    assert gateway.post("notifications", token).status_code == 202
    gateway.tokens_file.chmod(0o644)
    assert gateway.post("notifications", token).status_code == 503
    assert "with mode 0600 or 0640" in gateway.log.read_text()
    gateway.tokens_file.chmod(0o640)
    assert gateway.post("notifications", token).status_code == 202
    gateway.tokens_file.unlink()
    assert gateway.post("notifications", token).status_code == 503


def test_without_the_variable_nobody_is_let_in(another: Callable[..., Gateway]) -> None:
    refused = another(GATEWAY_TOKENS_FILE="").post("notifications", "any")
    assert (refused.status_code, refused.json()["detail"]) == (
        503,
        "Jobs cannot be started: GATEWAY_TOKENS_FILE is not set.",
    )


@pytest.mark.parametrize(
    "line",
    [
        "name",
        "name 1234",
        f"näme {'0' * 64}",
        f"name {'0' * 64} expires=soon",
        f"name {'0' * 64} expires=2027-01-01T00:00:00",
        f"name {'0' * 64} expires=9999-12-31T23:59:59-01:00",
        f"name {'0' * 64} expires=2027-01-01T00:00:00Z expires=2028-01-01T00:00:00Z",
        f"name {'0' * 64} admin=yes",
        f"name {'0' * 64} jobs",
    ],
)
def test_a_line_that_is_none_grants_nothing_and_the_others_go_on(line: str, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    tokens.issue(file, "good")
    with file.open("ab") as opened:
        opened.write(b"\xff\n" + line.encode())
    tokens.issue(file, "good-too")
    assert [token.name for token in tokens.read(file)] == ["good", "good-too"]


def test_the_file_keeps_its_mode_and_holds_no_token(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    token = tokens.issue(file, "one")
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o640)
    tokens.issue(file, "two")
    assert file.stat().st_mode & 0o777 == 0o640
    assert token not in file.read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["tokens"]


def test_the_first_token_makes_the_file_and_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "gateway" / "tokens"
    tokens.issue(path, "first")
    assert [each.name for each in tokens.read(path)] == ["first"]
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_name_is_given_once(tmp_path: Path) -> None:
    tokens.issue(tmp_path / "tokens", "directus")
    with pytest.raises(TokensError, match="has a token already"):
        tokens.issue(tmp_path / "tokens", "directus")


def test_operators_make_list_and_revoke_tokens(gateway: Gateway, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GATEWAY_TOKENS_FILE", str(tmp_path / "tokens"))
    get_settings.cache_clear()
    run = CliRunner().invoke
    made = run(cli, ["gateway", "token", "directus", "--expires", "90d", "--job", "notifications"])
    assert made.exit_code == 0
    assert re.fullmatch(r"cw_[\w-]{43}", made.stdout.strip())
    assert "directus expires at" in made.stderr
    other = json.loads(run(cli, ["gateway", "token", "old", "--expires", "0s", "--json"]).stdout)
    assert other["expires"].endswith("Z")
    listed = run(cli, ["gateway", "tokens", "--json"])
    assert [(row["name"], row["expired"], row["jobs"]) for row in json.loads(listed.stdout)] == [
        ("directus", False, ["notifications"]),
        ("old", True, None),
    ]
    assert listed.exit_code == 1
    assert run(cli, ["gateway", "revoke", "old"]).stdout == "old is revoked\n"
    assert run(cli, ["gateway", "revoke", "old"]).exit_code == 1
    assert run(cli, ["gateway", "tokens"]).exit_code == 0
    assert run(cli, ["gateway", "token", "x y"]).exit_code == 1
    assert run(cli, ["gateway", "token", "x", "--expires", "soon"]).exit_code == 2
    get_settings.cache_clear()


def test_strangers_who_try_tokens_are_slowed_down_and_lock_nobody_out(another: Callable[..., Gateway]) -> None:
    gateway = another(GATEWAY_REFUSALS_PER_MINUTE="3", GATEWAY_REQUESTS_PER_MINUTE="4")
    token = gateway.token()
    assert [gateway.post("notifications", "wrong").status_code for _ in range(4)] == [401, 401, 401, 429]
    slowed = gateway.post("notifications", None)
    assert slowed.status_code == 429
    assert 1 <= int(slowed.headers["Retry-After"]) <= 20
    assert "were refused: their token is missing or wrong, or it has expired" in slowed.json()["detail"]
    assert "Bearer" in slowed.headers["WWW-Authenticate"]

    answers: list[httpx.Response] = [gateway.post("notifications", token) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [202, 202, 202, 202, 429]
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 15
    assert answers[-1].json()["detail"].startswith("This token has made too many requests.")
    assert "WWW-Authenticate" not in answers[-1].headers
    assert gateway.post("notifications", gateway.token()).status_code == 202  # each token has a limit of its own


def test_each_id_of_a_body_counts_as_a_request(another: Callable[..., Gateway]) -> None:
    gateway = another(GATEWAY_REQUESTS_PER_MINUTE="60")
    token = gateway.token()
    assert gateway.post("attachments", token, {"attachment_ids": [*range(1, 101)]}).status_code == 202  # or none ever were
    assert gateway.post("attachments", token, {"attachment_id": 101}).status_code == 429
