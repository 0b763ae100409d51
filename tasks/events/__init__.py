"""Events: who is to know is called with each, or reads them, by a number that grows. `tasks/outbox.py` is where they come from.

queue · deliver (what is due, a few at once) · receiver (sign and POST)
"""
