"""The ledger: the truth about every message, in Redis, changed by scripts only."""
