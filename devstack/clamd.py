"""The stack's virus scanner: clamd with the limits that production should have, and the signature of EICAR."""

import shutil
import time

from devstack.errors import StackError
from devstack.folder import Folder
from devstack.probe import tcp_answer
from devstack.programs import find
from devstack.service import POLL_SECONDS, READY_SECONDS, Service
from devstack.signatures import database

# StreamMaxLength stays within MaxFileSize, MaxFileSize is no smaller than MaxScanSize and both alerts are on: otherwise clamd
# answers OK for what it never scanned.
OPTIONS = {
    "Foreground": "yes",
    "LogTime": "yes",
    "StreamMaxLength": "25M",
    "MaxFileSize": "100M",
    "MaxScanSize": "100M",
    "MaxScanTime": "30000",
    # A page's script takes clamd the square of its length, whatever MaxScanTime says.
    "MaxHTMLNormalize": "1M",
    "MaxScriptNormalize": "1M",
    "AlertExceedsMax": "yes",
    "AlertEncrypted": "yes",
    "LocalSocketMode": "600",
    "TCPAddr": "127.0.0.1",
}
FIRST_VERSION = 27_000


class Clamd(Service):
    """clamd on a Unix socket and a loopback port."""

    name = "clamd"

    def __init__(self, folder: Folder) -> None:
        super().__init__(folder)
        self.socket = folder.socket(self.name)
        self._program, self._configuration = self.data / "clamd", self.data / "clamd.conf"
        self._signatures, self._scratch = self.data / "signatures", self.data / "scratch"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def tcp_url(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        super().prepare()
        # Debian's AppArmor profile ties /usr/sbin/clamd to Debian's own folders; it goes by path, so a copy is free.
        shutil.copy(find("clamd"), self._program)
        for folder in (self._signatures, self._scratch):
            folder.mkdir()
        self._write_signatures(FIRST_VERSION, ())
        self.configure({})

    def configure(self, options: dict[str, str]) -> None:
        """Write clamd.conf with these options changed, for the next start."""
        paths = {
            "DatabaseDirectory": self._signatures,
            "TemporaryDirectory": self._scratch,
            "LocalSocket": self.socket,
        }
        options = {**OPTIONS, **options, "TCPSocket": str(self.port), **{key: f'"{path}"' for key, path in paths.items()}}
        self._configuration.write_text("".join(f"{key} {value}\n" for key, value in options.items()))

    def publish(self, version: int, *signatures: bytes) -> None:
        """Load EICAR's signature and these lines of an .ndb file under a new version, and wait until clamd uses them."""
        self._write_signatures(version, signatures)
        before = self._loaded()
        tcp_answer(self.port, b"zRELOAD\0")
        deadline = time.monotonic() + READY_SECONDS
        while self._loaded() == before or f"/{version}/".encode() not in tcp_answer(self.port, b"zVERSION\0"):
            if time.monotonic() > deadline:
                late = f"clamd did not load signatures {version} within {READY_SECONDS:.0f} s"
                raise StackError(f"{late}. {self.log_ends()}")
            time.sleep(POLL_SECONDS)

    def _loaded(self) -> int:
        """Return how often clamd has loaded its signatures anew; their version may be the same."""
        return self.log.read_text(errors="replace").count("Activating the newly loaded database")

    def _write_signatures(self, version: int, signatures: tuple[bytes, ...]) -> None:
        new = self._signatures / "daily.new"
        new.write_bytes(database(version, signatures))
        new.replace(self._signatures / "daily.cud")

    def command(self) -> list[str]:
        return [str(self._program), f"--config-file={self._configuration}"]

    def answers(self) -> bool:
        return tcp_answer(self.port, b"zPING\0") == b"PONG\0"

    def environment(self) -> dict[str, str]:
        return {"CLAMD_URL": self.url}
