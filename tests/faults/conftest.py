"""Which of the fault cases run: a fixed few in a plain run, all of them where they are asked for."""

import re

import pytest

from tests.faults.mail import LONG

# In a plain run; the others with `-m faults` (`make faults`), with `-k`, or with POSTROOM_LONG=1.
SHORT = {1, 3, 4, 7, 10, 12, 14, 17, 22, 26}
CASE = re.compile(r"test_case_(\d\d)_")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    asked = LONG or config.option.keyword or "faults" in config.option.markexpr
    left_out = []
    for item in items:
        if found := CASE.match(item.name):
            item.add_marker(pytest.mark.faults)
            if not asked and int(found[1]) not in SHORT:
                left_out.append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
