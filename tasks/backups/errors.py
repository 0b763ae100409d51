"""The error of a backup that cannot be made, trusted or restored."""


class BackupError(Exception):
    """The work failed; the text is one sentence for the person who must act."""


class BusyError(BackupError):
    """Another backup, restore or rotation works in the same folder."""


class StoppedError(BackupError):
    """The worker was asked to stop; what was under way is undone and will be due again."""


class ChangedError(BackupError):
    """The artefact or its manifest is not what was signed when it was made."""


class TakenError(BackupError):
    """Another object has the key of what is to be shipped; it was left alone."""
