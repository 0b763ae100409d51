"""Push delivery: drain `chat_notifications` to the providers and try FAILED rows again.

A row is claimed (`queue`), its devices are read (`devices`), its preferences looked up, its payload built (`payload`), sent
(`providers`), the outcomes weighed against the ledger (`settlement`, `retry_policy`) and written in bulk (`queue`). `drain`
lets these stages overlap; `task` holds the Celery entry points.
"""
