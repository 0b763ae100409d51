"""Backups that are known to restore: dump daily, seal weekly, ship monthly, and prove it by drills.

A backup is an artefact and its manifest; without the manifest, which is written last, it does not count. `dump` streams the
nine chat tables into a compressed file while `scan` counts what passes; `seal` makes a week's dumps one encrypted archive
that its signed `manifest` authenticates; `ship` copies archives to S3. `restore` is the way back, `drill` walks it on
schedule, `rotate` deletes what is past its keep. `run` says when each is due, `task` holds the Celery entry points.
"""
