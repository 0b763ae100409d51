"""Virus scans: nothing that users upload is served before ClamAV has really looked at it.

An attachment comes to be due (`adopt`, or the API's own call), is claimed (`queue`), read from where it lies (`storage`) and
streamed through ClamAV (`scan`, `clamd`); what comes back is weighed (`verdicts`, `archives`), turned into flags,
a record and perhaps a next try (`settlement`, `retry_policy`) and written (`queue`). `fitness` makes sure that clamd's OK can
be believed; `run` lets many files overlap; `task` holds the Celery entry points.
"""
