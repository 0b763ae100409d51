"""`make demo`: a whole chat delivered before your eyes, and then counted.

`run` is the order of events; `trouble` says what is wrong with the chat on purpose, `processes` runs the Procfile, `progress`
and `screen` show it, and `audit` judges the end by what the API wrote and what the emulator logged.
"""
