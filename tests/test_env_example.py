"""`.env.example` lists every variable that the settings read, and no other of theirs."""

import re

from devstack.folder import PROJECT
from settings import Settings

# Read by the Procfile, and by Flower itself.
OTHERS = {"NOTIFICATIONS_PROCESSES", "ATTACHMENTS_PROCESSES", "HOUSEKEEPING_PROCESSES", "FLOWER_ADDRESS", "FLOWER_PORT"}


def test_it_lists_every_variable() -> None:
    listed = set(re.findall(r"^#?([A-Z][A-Z0-9_]+)=", (PROJECT / ".env.example").read_text(), re.MULTILINE))
    assert listed - OTHERS == {name.upper() for name in Settings.model_fields}
