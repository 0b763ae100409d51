"""Virus scans: nothing that users upload is served before ClamAV has really looked at it.

An attachment is due when the API calls `scan` or `find_unqueued` has found it. It is claimed (`queue`), read (`storage`), sent
through ClamAV (`scan`, `clamd`), looked into (`looks`, `archives`) and judged (`verdicts`). The verdict becomes flags, a record
and perhaps a next try (`settlement`), which are written in bulk (`queue`). `scannable` tests clamd's configuration, `run` scans
many files at once, `task` holds the Celery entry points.
"""
