"""Private local MariaDB, Redis, clamd, S3 and provider emulators: for the demo, tests and benchmarks only."""
