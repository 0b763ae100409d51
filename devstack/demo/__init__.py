"""`make demo`: a chat's background work done before your eyes, and then counted.

`run` is the order of events. `trouble` is what is wrong with the chat on purpose, and `outage` with the provider; `procfile`
starts the workers; `progress` and `screen` show their work; `account` judges it by what the API wrote and the emulator logged.
`jobs` are all jobs but the pushes, at the commands of the `operator`; `pictures` are the README's.
"""
