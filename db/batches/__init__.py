"""The batch engine: walk a big table by key, delete or change what a predicate matches, in small paced transactions.

`target` says what is walked, `size` how many rows a transaction takes, `throttle` and `purge_pause` when to hold back for the sake of
others, and `walk` puts them together. A walk is bounded in rows and seconds, ends cleanly between batches, and can be
continued from its place.
"""
