"""Emulators of the push providers, which stand in for the real ones in tests, the demo and benchmarks.

One process (`python -m devstack.emulators --folder FOLDER --port PORT`) speaks FCM HTTP v1 with its OAuth token
endpoint, APNs and Web Push over HTTP/2 and HTTP/1.1. It checks what the real providers check, answers in their words,
fails when told to (`faults.py`) and writes down every message that it accepted (`log.py`), so that losses and repeats
can be counted from outside. Start reading at `server.py`; drive it with `client.py`.
"""
