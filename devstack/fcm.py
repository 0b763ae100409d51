"""The stack's push providers: the process of `devstack.emulators`, its certificate and its service account."""

import sys
from pathlib import Path

from devstack.folder import PROJECT
from devstack.probe import http_status
from devstack.service import Service


class Fcm(Service):
    """The provider emulators, over TLS under a certificate authority of their own."""

    name = "fcm"

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca_file(self) -> Path:
        """The certificate that a client has to trust, PEM."""
        return self.data / "ca.pem"

    @property
    def service_account(self) -> Path:
        """The credentials of a made-up Firebase project, whose `token_uri` is the emulator's."""
        return self.data / "service-account.json"

    @property
    def working_folder(self) -> Path:
        # `python -m` looks for its module there.
        return PROJECT

    def command(self) -> list[str]:
        return [sys.executable, "-m", "devstack.emulators", "--folder", str(self.data), "--port", str(self.port)]

    def answers(self) -> bool:
        return self.ca_file.exists() and http_status(self.port, "GET", "/_control/ready", self.ca_file) == 200

    def environment(self) -> dict[str, str]:
        return {
            "FCM_BASE_URL": self.url,
            "GOOGLE_APPLICATION_CREDENTIALS": str(self.service_account),
            "SSL_CERT_FILE": str(self.ca_file),
        }
