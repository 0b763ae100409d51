"""What comes in on the queues: each message is examined before Celery sees it, and what no worker can run is kept aside."""
