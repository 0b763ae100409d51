"""docs/installation.md and deploy/container done to the letter, under a real systemd and a real container engine.

Only with DEPLOY=1, as `make test-deploy` sets it: it needs root, and some minutes.
"""
