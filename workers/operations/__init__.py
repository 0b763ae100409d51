"""What operators see: one picture of queue, database and processes, for /metrics, /status and `chat-workers status` alike.

Each module of `sections` answers for one part: what is read, what it says as metrics, what is wrong with it in sentences, and
which tables show it. Two sources feed them, MySQL and Redis; either may be down without hiding the other.
"""
