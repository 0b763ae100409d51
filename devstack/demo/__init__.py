"""`make demo`: a whole chat delivered before your eyes, and then counted.

`run` is the order of events; `trouble` is what is wrong with the chat on purpose, `procfile` starts the workers, `progress`
and `screen` show their work, and `account` judges it by what the API wrote and what the emulator logged.
"""
