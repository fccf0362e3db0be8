"""What can go wrong between a process and the ledger.

LedgerError
├─ LedgerUnavailableError   surely not written: not connected, loading, read-only
│  ├─ LedgerFullError       Redis refuses writes for want of memory
│  └─ LedgerMovedError      another node of the cluster serves it, or will
└─ LedgerUnconfirmedError   may have been written: connection or replicas were lost before we knew
"""


class LedgerError(Exception):
    """Base of the ledger's errors. Their text names no key and no value."""


class LedgerUnavailableError(LedgerError):
    """The call surely changed nothing; try again later."""


class LedgerFullError(LedgerUnavailableError):
    """Redis is out of memory and took nothing."""


class LedgerMovedError(LedgerUnavailableError):
    """This node of a cluster does not serve the partition, or is giving it away; nothing was changed."""


class LedgerUnconfirmedError(LedgerError):
    """The call may or may not have changed the ledger. Scripts can be repeated with the same arguments."""
