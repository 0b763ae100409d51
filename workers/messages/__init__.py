"""Messages between Redis and Celery: each is read for what it asks for and written anew; what cannot be read is kept aside."""
