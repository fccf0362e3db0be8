"""Postroom: what the edge (`service`) and the carriers (`workers`) share.

The straight path of a message:

    edge → ledger → round → lane → channel → outcome → ledger

`service` checks a request and writes it into the ledger (202). A round looks at one agent's queue, its
lanes claim what is due, render and compose it, submit it through the agent's channel and write the
outcome back. The two processes meet only in this package and in Redis.
"""

__version__ = "0.1.0"
