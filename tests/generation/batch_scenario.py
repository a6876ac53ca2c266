"""A run through batch jobs in a process of its own, to be killed: ``python batch_scenario.py CONFIG_AS_JSON``."""

from __future__ import annotations

import json
import sys

from genesis_lab.generation.conversations import GenerationConfig, generate_conversations

if __name__ == "__main__":
    generate_conversations(GenerationConfig(**json.loads(sys.argv[1])))
