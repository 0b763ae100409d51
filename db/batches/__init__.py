"""The batch engine: walk a big table by key, delete or change what a predicate matches, in small paced transactions.

A walk is bounded in rows and seconds and ends cleanly between batches. `target` is the table with its statements, `place` the
position and the search for the next batch, `batch` writes it, `walk` repeats both, `throttle` holds it back.
"""
