"""What operators see: one snapshot of database, queues and processes, for /metrics, /status and `chat-workers status` alike.

Facts come in parts (a job's, the queues', the workers', beat's), read from MySQL and Redis. Either may be down without hiding
the other, and a part that cannot be read hides no other part.
"""
