"""Faults against the whole running stack under live load, and an audit of what became of every row: `python -m tests.chaos`.

Start reading at `campaign.py`. `faults/table.py` lists what is done to the stack, `audit/` judges what is left of it.
"""
