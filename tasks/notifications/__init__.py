"""Push delivery: drain `chat_notifications` to the providers and try FAILED rows again.

A row is claimed (`queue`) with its recipient's `preferences`, its `devices` are read, its `payload` is built and sent
(`providers`) unless the provider's `breaker` is open. The outcomes go into the row's `ledger`, which becomes SENT, FAILED or
BOUNCED (`settlement`, `retry_policy`), is written in bulk (`results`), and leaves its history (`journal`). `drain` lets these
stages overlap; `task` holds the Celery entry points.
"""
