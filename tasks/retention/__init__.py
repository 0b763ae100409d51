"""Retention: rows that have had their time are deleted, or conversations put to rest, by policy.

`policies` is the table of what goes; `rules` says what operators have set; `run` walks one policy with the batch engine
(`db.batches`) and `ledger` remembers it; `archive` stores rows before they go and `restore` brings them back; `plan` previews.
"""
