"""Points of the code at which a test lets this process die or freeze, to see what the others make of it.

Inert unless the environment says `POSTROOM_TEST_FAILPOINTS=1` when the process starts. Then
`POSTROOM_FAILPOINT=NAME[=ACTION[:COUNT]]` arms one point: ACTION is `kill` (the default, SIGKILL) or `stop`
(SIGSTOP), and COUNT makes it act the COUNT-th time the point is reached, and only then.
"""

import os
import signal
from collections.abc import Callable, Mapping

FLAG = "POSTROOM_TEST_FAILPOINTS"
ARMED = "POSTROOM_FAILPOINT"

# Each name and the moment it stands for.
POINTS = {
    "accept.before_script": "the request is checked, and nothing of it is in the ledger",
    "accept.after_script": "the message is in the ledger, and its caller has no answer",
    "claimed": "the attempt of a message begins: of it, at most its opening is said, with the dot before it",
    "after_rcpt": "the server has answered for every recipient",
    "after_354": "the server waits for the content",
    "mid_body": "the first part of the content is out; of a small one, all of it",
    "after_mark": "the commit mark is written; the dot, or the HTTP request, is not out",
    "after_dot": "the dot is out, and its answer was not read",
    "after_request": "the HTTP answer has begun, and its body was not read",
    "before_finish": "the outcome is known, and not on its way into the ledger",
    "after_finish": "the outcome is in the ledger",
}
ACTIONS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def arm(environ: Mapping[str, str]) -> Callable[[str], None]:
    """Return what `reach` is in such an environment.

    Raises:
        ValueError: the flag is set, and what is to be armed is no known point or action.
    """
    armed = environ.get(ARMED)
    if environ.get(FLAG) != "1" or not armed:
        return _pass
    name, _, how = armed.partition("=")
    action, _, count = how.partition(":")
    if name not in POINTS or (action or "kill") not in ACTIONS:
        raise ValueError(f"{ARMED}: no such point or action")
    return _strike(name, ACTIONS[action or "kill"], int(count or 1))


def _strike(armed: str, number: signal.Signals, count: int) -> Callable[[str], None]:
    left = count

    def reach_armed(name: str) -> None:
        nonlocal left
        if name == armed:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), number)

    return reach_armed


def _pass(name: str) -> None:
    """Do nothing, as in every process that is no test's."""


reach = arm(os.environ)
