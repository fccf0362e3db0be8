"""`postroom dev`, what `make run` runs: Redis, API, worker and inbox on one machine, supervised."""
