"""A run of the real engine in a process of its own, to be killed: ``python scenario.py TARGET TOTAL``."""

from __future__ import annotations

import sys
from pathlib import Path

from genesis_lab.domains.conversations.domain import Conversations, ConversationsConfig
from genesis_lab.generation.engine import generate
from genesis_lab.generation.plan import make_plan
from genesis_lab.providers.offline import OfflineProvider


def run(target: Path, total: int) -> None:
    domain = Conversations(ConversationsConfig(total=total, categories=("refunds",)))
    generate(make_plan(domain, total, 7), domain, OfflineProvider(), target)


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]))
