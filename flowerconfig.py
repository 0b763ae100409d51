"""What `celery -A workers.app flower` starts with: Flower reads this file from the folder that it is started in."""

from workers.flower import options

globals().update(options())
