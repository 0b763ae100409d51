"""One campaign: the stack under load, faults drawn by a seed, then peace, a bounded wait, and the audit."""

import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Engine, text

from devstack.chat import conversation_pairs
from devstack.probe import http_status
from tests.chaos.audit import bites as bites_audit
from tests.chaos.audit import files as files_audit
from tests.chaos.audit import pushes as pushes_audit
from tests.chaos.audit import rows as rows_audit
from tests.chaos.audit import tapes as tapes_audit
from tests.chaos.audit import writes as writes_audit
from tests.chaos.audit.problem import Problem, Sort
from tests.chaos.chores import Chores, Tapes
from tests.chaos.client import Client
from tests.chaos.faults.base import Event, Play
from tests.chaos.faults.table import FAULTS
from tests.chaos.files import Files
from tests.chaos.gateway import Gateway
from tests.chaos.pushes import Nudges, Pushes, Readers
from tests.chaos.scene import Scene, one
from tests.chaos.unanswered import unanswered

# Some leases and beats: what may still be waited for when all faults are over.
QUIET_SECONDS = 480
# And what met several faults, until its next try: a push service that never answered this process (Web Push) is asked
# again after five minutes at first, an hour and a half at most.
LONGEST_QUIET_SECONDS = 6000
# Longer than any fault's bound: one that is still at it then has failed.
LONGEST_FAULT_SECONDS = 180
# From then on the report says what it is that is waited for.
SOON_SECONDS = 60
PAUSE_SECONDS = (0.5, 3.0)
EPILOGUE_ROWS = 40

UNSETTLED = """
    SELECT (SELECT COUNT(*) FROM chat_notifications WHERE delivery_status = 'PENDING')
         + (SELECT COUNT(*) FROM chat_notifications
            WHERE delivery_status = 'FAILED' AND COALESCE(error_message, '') NOT LIKE 'gave up:%')
         + (SELECT COUNT(*) FROM worker_deliveries)
"""
UNSCANNED = """
    SELECT COUNT(*) FROM message_attachments a LEFT JOIN worker_scans s ON s.attachment_id = a.id
    WHERE s.attachment_id IS NULL OR s.due_at IS NOT NULL AND s.reason NOT LIKE '%is not there%'
"""
UNDELETED = """
    SELECT (SELECT COUNT(*) FROM chat_notifications WHERE is_read = 1 AND created_at < NOW() - INTERVAL 90 DAY)
         + (SELECT COUNT(*) FROM typing_indicators WHERE expires_at < NOW() - INTERVAL 3 SECOND)
"""

# Which a worker has begun within a minute, else it is late.
NOT_YET_DUE = "SELECT COUNT(*) FROM worker_deliveries WHERE lease IS NULL AND due_at > NOW(3) - INTERVAL 60 SECOND"

WAITING = text("""
    SELECT n.id, n.delivery_status, n.error_message, d.lease, d.due_at, d.waiting_on, d.claims, d.reason, d.devices
    FROM worker_deliveries d LEFT JOIN chat_notifications n ON n.id = d.notification_id ORDER BY d.due_at LIMIT 1
""")
WRITE_TO_THE_DEAD = text("""
    INSERT INTO chat_notifications
      (id, conversation_id, message_id, recipient_id, sender_id, title, body, device_tokens)
    SELECT :after + ROW_NUMBER() OVER (),
           n.conversation_id, n.message_id, n.recipient_id, n.sender_id, title, body, device_tokens
    FROM chat_notifications n JOIN worker_dead_devices d ON d.notification_id = n.id LIMIT :rows
""")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to play: seconds of faults (None: until each was played once), rows and files a second, names of faults."""

    seed: int
    seconds: float | None
    rate: float = 200
    files: float = 2.0
    faults: tuple[str, ...] = tuple(FAULTS)
    commit: str = "unknown"
    old: str = ""
    """The commit that runs on host B in rolling restarts; empty: this one."""


@dataclass(slots=True)
class Outcome:
    """All that was found."""

    plan: Plan
    seconds: float
    settled_after: float | None
    """How long after the last fault everything was done; None: it was not in time."""
    notifications: int
    attachments: int
    doomed: int
    refused: dict[str, int]
    """Statements of the API's clients that failed, by client."""
    pushes: pushes_audit.Pushes
    files: files_audit.Files
    tapes: tapes_audit.Tapes
    events: list[Event]
    problems: list[Problem]
    ends: dict[str, int]
    disk: str
    written: list[tuple[int, int, float]] = field(default_factory=list)
    gateway: tuple[int, int] = (0, 0)
    """Calls of the gateway that started something, and those that it could not take then."""


def run(scene: Scene, plan: Plan, say: Callable[[str], None]) -> Outcome:
    """Play the plan on a scene whose processes are ready, and judge."""
    load = Load(scene, plan)
    load.start()
    began = time.time()
    events = _play(scene, plan, say)
    seconds = time.time() - began
    scene.heal()
    load.end()
    say(f"{seconds:.0f} s of faults are over; waiting until all is done")
    settled_after = _await_quiet(scene, load, say)
    problems = _epilogue(scene, load)
    say("auditing")
    return _judge(scene, plan, load, events, seconds, settled_after, problems)


class Load:
    """The API's clients."""

    def __init__(self, scene: Scene, plan: Plan) -> None:
        where = (scene.stack.environment["DATABASE_URL"], scene.stack.redis.url)
        with scene.engine.connect() as connection:
            pairs = conversation_pairs(connection)
        self.pushes = Pushes(*where, scene.push_url, pairs, rate=plan.rate, seed=plan.seed)
        self.files = Files(*where, scene.uploads, scene.gateway(), rate=plan.files, seed=plan.seed)
        self.chores = Chores(*where, rows=5, seed=plan.seed)
        self.tapes = Tapes(*where, scene.disk.path / "backups", scene.disk.path / "kept")
        nudges = Nudges(*where, self.pushes.written, scene.gateway(), seed=plan.seed)
        self.gateways = (nudges.gateway, self.files.gateway)
        readers = Readers(*where, self.pushes.written, rate=plan.rate, seed=plan.seed)
        self.clients: tuple[Client, ...] = (self.pushes, nudges, readers, self.files, self.chores, self.tapes)

    def start(self) -> None:
        """Begin; the first pushes bring the messages that all other rows refer to."""
        self.pushes.start()
        while not self.pushes.written.batches:
            time.sleep(0.05)
        for client in self.clients[1:]:
            client.start()

    def end(self) -> None:
        for client in self.clients:
            client.end()
        for client in self.clients:
            client.join()
        self.files.arrive()


def _play(scene: Scene, plan: Plan, say: Callable[[str], None]) -> list[Event]:
    """Draw one or two faults at a time, each once before any comes again, until the time is up or, without one, once."""
    chance, over = random.Random(plan.seed), threading.Event()
    events: list[Event] = []
    deck: list[str] = []
    over_at = threading.Timer(plan.seconds or 0, over.set)
    if plan.seconds is not None:
        over_at.start()
    try:
        while not over.is_set() and (plan.seconds is not None or deck or not events):
            chosen = draw(deck, plan.faults, chance)
            at_once = [Event(name, time.time()) for name in chosen]
            say(" and ".join(chosen))
            threads = [
                threading.Thread(target=_one, args=(Play(scene, random.Random(chance.random()), over, event),), daemon=True)
                for event in at_once
            ]
            for thread in threads:
                thread.start()
            for thread, event in zip(threads, at_once, strict=True):
                thread.join(LONGEST_FAULT_SECONDS)
                if thread.is_alive():
                    event.error, event.ended = f"not over after {LONGEST_FAULT_SECONDS} s", time.time()
            events += at_once
            over.wait(chance.uniform(*PAUSE_SECONDS))
    finally:
        over_at.cancel()
        over.set()
    return events


def draw(deck: list[str], names: tuple[str, ...], chance: random.Random) -> list[str]:
    """Take the next fault from the deck, and now and then a second one that is done to something else."""
    if not deck:
        deck += chance.sample(names, len(names))
    first = deck.pop()
    others = (name for name in deck if FAULTS[name].target != FAULTS[first].target and not FAULTS[name].alone)
    second = next(others, None)
    if second is None or FAULTS[first].alone or chance.random() < 0.4:
        return [first]
    deck.remove(second)
    return [first, second]


def _one(play: Play) -> None:
    play.event.began = time.time()
    try:
        FAULTS[play.event.fault].run(play)
    except Exception as error:  # noqa: BLE001 - a fault that could not be played is reported with the others
        play.event.error = f"{type(error).__name__}: {error}"
    play.event.ended = time.time()
    play.event.whole = not play.over.is_set()


def _await_quiet(scene: Scene, load: Load, say: Callable[[str], None]) -> float | None:
    """Wait, for as long as may be, until nothing is left to do; return how long it took."""
    began = looked = time.monotonic()
    told = ""
    load.chores.tidy()
    while True:
        waited = time.monotonic() - began
        left = {
            name: one(scene.engine, query) for name, query in (("push", UNSETTLED), ("scan", UNSCANNED), ("delete", UNDELETED))
        }
        if not any(left.values()):
            return waited
        if not may_wait(scene.engine, waited):
            return None
        if time.monotonic() - looked > 10:
            looked = time.monotonic()
            load.chores.tidy()
            waiting = ", ".join(f"{name} {count:,}" for name, count in left.items())
            waiting += f"\n          {_sample(scene.engine)}" if waited > SOON_SECONDS else ""
            if waiting != told:
                say(f"{waited:4.0f} s: left to do: {waiting}")
                told = waiting
        time.sleep(0.5)


def may_wait(engine: Engine, waited: float) -> bool:
    """Return whether what is left after so many seconds may still be on its way: later on, a retry that is not due yet."""
    return waited < QUIET_SECONDS or (waited < LONGEST_QUIET_SECONDS and one(engine, NOT_YET_DUE) > 0)


def _sample(engine: Engine) -> str:
    """Return one notification that is waited for, and why it waits."""
    with engine.connect() as connection:
        found = connection.execute(WAITING).mappings().first()
    return "" if found is None else ", ".join(f"{key} {value}" for key, value in found.items())


def _epilogue(scene: Scene, load: Load) -> list[Problem]:
    """Write to people with a device that is long known to be dead: nothing may be sent to it again."""
    hits = sum(scene.emulator.hits().values())
    known = one(scene.engine, "SELECT COUNT(*) FROM worker_dead_devices")
    with scene.engine.begin() as connection:
        copied = connection.execute(WRITE_TO_THE_DEAD, {"after": load.pushes.next_id, "rows": EPILOGUE_ROWS}).rowcount
    load.pushes.send("tasks.notifications.drain")
    deadline = time.monotonic() + 30
    while one(scene.engine, UNSETTLED) and time.monotonic() < deadline:
        time.sleep(0.2)
    again = sum(scene.emulator.hits().values()) - hits
    if not known or not copied:
        return [Problem(Sort.STUCK, "no dead device was ever written down")]
    return [Problem(Sort.WRONG, f"{again} pushes went to devices that were known to be dead")] if again else []


def _judge(
    scene: Scene,
    plan: Plan,
    load: Load,
    events: list[Event],
    seconds: float,
    settled_after: float | None,
    problems: list[Problem],
) -> Outcome:
    engine: Engine = scene.engine
    pushes = pushes_audit.judge(
        pushes_audit.read_rows(engine),
        scene.emulator.accepted(),
        load.pushes.written,
        [(event, FAULTS[event.fault].excuse) for event in events],
        unanswered(scene.emulator.accepted(), scene.cuts()),
        scene.hosts(),
    )
    files = files_audit.judge(engine, load.files.uploads, scene.quarantine)
    tapes = backups(scene, load.pushes.written.batches)
    problems = [
        *pushes.problems,
        *pushes_audit.left_over(engine),
        *files.problems,
        *rows_audit.judge(engine, load.chores.kept, load.chores.live),
        *tapes.problems,
        *writes_audit.judge(events, FAULTS, (at for _, _, at in load.pushes.written.batches)),
        *gateway(scene, load.gateways),
        *bites_audit.judge(events),
        *problems,
    ]
    return Outcome(
        plan,
        seconds,
        settled_after,
        sum(pushes.rows.values()),
        load.files.answered,
        load.chores.doomed,
        {client.name: client.failed for client in load.clients},
        pushes,
        files,
        tapes,
        events,
        problems,
        dict(scene.fleet.ends),
        scene.disk.kind,
        load.pushes.written.batches,
        (sum(each.started for each in load.gateways), sum(each.missed for each in load.gateways)),
    )


def backups(scene: Scene, batches: Iterable[tuple[int, int, float]]) -> tapes_audit.Tapes:
    """Return the account of all backups that were made, the newest dump restored; `batches` as `tapes.restore_newest` takes."""
    passphrase = (scene.folder / "passphrase").read_bytes().split()
    kept = scene.disk.path / "kept"
    account = tapes_audit.judge([scene.disk.path / "backups", *sorted(kept.iterdir())], passphrase)
    tapes_audit.restore_newest(account, scene.engine, passphrase, batches)
    return account


def gateway(scene: Scene, clients: Sequence[Gateway]) -> list[Problem]:
    """Return what is wrong with the gateway: it does not answer, has started nothing, or refused what was right."""
    found = [Problem(Sort.WRONG, f"the gateway refused a good call: {why}") for client in clients for why in client.refused]
    if http_status(scene.gateway_port, "GET", "/healthz") != 200:
        found.append(Problem(Sort.STUCK, "the gateway does not answer"))
    if not all(client.started for client in clients):
        found.append(Problem(Sort.STUCK, "the gateway has started nothing"))
    return found
