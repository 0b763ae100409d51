"""The gateway: the one HTTP door to the workers, for the API (jobs) and for operators (health, metrics, status)."""
