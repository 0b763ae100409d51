"""The batch engine: walk a big table by key, delete or change what a predicate matches, in small paced transactions.

A walk is bounded in rows and seconds, ends cleanly between batches, and can be continued from its place. `target` is the table
with its statements, `place` the position, `search` finds the next batch, `batch` writes it, `walk` repeats both, `throttle`
holds it back.
"""
