"""Conversations for tests, made on the spot."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from genesis_lab.dataset import Dataset, DatasetWriter, open_dataset

INTENTS = (
    ("card_arrival", "card_management"),
    ("Refund_not_showing_up", "refunds"),
    ("atm_support", "cash_atm"),
    ("exchange_rate", "exchange_currency"),
)


def conversation(i: int, **changes: Any) -> dict[str, Any]:
    """A good record; fields given as None are missing in effect."""
    intent, category = INTENTS[i % len(INTENTS)]
    language = "es" if i % 2 else "en"
    opening = f"¿Dónde está mi tarjeta número {i}?" if i % 2 else f"Where is my card number {i}?"
    turns = [{"speaker": "customer", "text": opening}, {"speaker": "agent", "text": f"{i} 🙂"}]
    return {
        "conversation_id": f"conv_{i:08d}",
        "intent": intent,
        "category": category,
        "sentiment": "neutral",
        "complexity": "simple",
        "language": language,
        "turn_count": len(turns),
        "emotion_arc": "stable_neutral",
        "resolution_time": "quick",
        "resolution_status": "resolved",
        "turns": turns,
        "provenance": {
            "provider": "offline",
            "model": "grammar",
            "prompt_version": "1",
            "spec_index": i,
            "attempts": 1,
            "generated_at": datetime(2025, 3, 1, 12, tzinfo=UTC),
        },
    } | changes


def write(path, records: dict[str, list[dict[str, Any]]] | list[dict[str, Any]], **manifest: Any) -> Dataset:
    """A conversations dataset of these records, by split."""
    by_split = records if isinstance(records, dict) else {"train": records}
    with DatasetWriter(path, "conversations", manifest) as writer:
        for split, some in by_split.items():
            writer.write(some, split)
    return open_dataset(path)
