"""What operators see: one snapshot of database, queues and processes, for /metrics, /status and `chat-workers status` alike."""
