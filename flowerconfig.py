"""What `celery -A workers.app flower` starts with; workers/app.py tells Flower to read this file."""

from workers.flower import options

globals().update(options())
