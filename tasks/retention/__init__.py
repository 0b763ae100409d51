"""Retention: delete old rows, and close or deactivate old conversations, by policy.

`policies` is the table of policies and `rules` adds the operators' values; `run` walks one policy with the batch engine
(`db.batches`) and `ledger` records it; `archive` stores rows before they are deleted, and `plan` previews a run.
"""
