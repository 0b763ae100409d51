"""The stack's S3 endpoint: moto's server with one bucket. Its objects live in memory and go with the process."""

import sys

from devstack.probe import http_status
from devstack.service import Service

BUCKET = "backups"


class S3(Service):
    """moto's server. A restart comes back with the bucket, empty."""

    name = "s3"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]

    def answers(self) -> bool:
        # Each restart forgets the bucket, so it is made here; to make it twice is no error.
        return http_status(self.port, "PUT", f"/{BUCKET}") == 200

    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": "devstack",
            "AWS_SECRET_ACCESS_KEY": "devstack",
            "AWS_DEFAULT_REGION": "us-east-1",
            "BACKUP_S3_URI": f"s3://{BUCKET}/chat",
        }
