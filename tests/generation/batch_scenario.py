"""A run through batch jobs in a process of its own, to be killed: ``python batch_scenario.py CONFIG_AS_JSON``."""

from __future__ import annotations

import json
import sys

from genesis_lab.generation import config_for, generate

if __name__ == "__main__":
    generate(config_for()(**json.loads(sys.argv[1])))
