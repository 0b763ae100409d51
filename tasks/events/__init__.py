"""Events: who is to know is called with each, or reads them, by a number that grows. They come from `tasks/outbox.py`."""
