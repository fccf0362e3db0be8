"""`postroom check`: everything that would stop a start, and what would start but not as it was meant."""

import os
import sys

from postroom.config.advice import find_warnings
from postroom.settings import read_settings
from postroom.startup import load_everything


def check() -> int:
    """Load configuration and templates; faults are raised, warnings are printed and leave the status 0."""
    settings = read_settings(os.environ)
    config, templates = load_everything(settings, os.environ)
    for warning in find_warnings(config):
        print(f"warning: {warning.pointer}: {warning.detail}", file=sys.stderr)
    channels = sum(len(agent.channels) for agent in config.agents.values())
    print(
        f"{settings.config}: {len(config.agents)} agent(s) with {channels} channel(s), "
        f"{len(config.callers)} caller(s), {len(templates.names)} template(s): ready to start"
    )
    return 0
