"""The gateway: the one HTTP server in front of the workers, for the API (jobs) and for operators (health, metrics, status)."""
