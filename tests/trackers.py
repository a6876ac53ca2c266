"""Small trackers as Rasa writes them: events, and databases that hold them."""

from __future__ import annotations

import itertools
import json
import sqlite3
from pathlib import Path
from typing import Any

FIXTURE = Path(__file__).parent / "review" / "tracker.sqlite"
"""164 events of six senders, cut from the reference tracker: NUL, emoji, a restart, payloads, fallback."""
SAMPLE = Path(__file__).parents[1] / "params" / "samples" / "tracker.jsonl"
"""638 events of 29 people within two weeks, 96 typed messages in 32 conversations, two models."""
TRACKER = (
    "CREATE TABLE events (id {}, sender_id VARCHAR(255) NOT NULL, type_name VARCHAR(255) NOT NULL, timestamp FLOAT, "
    "intent_name VARCHAR(255), action_name VARCHAR(255), data TEXT)"
)
BROKER = "CREATE TABLE events (id {}, sender_id VARCHAR(255), data TEXT)"
_moments = itertools.count(1_000)


def user(text: Any, name: str | None = "saludar", confidence: float = 0.9, **more: Any) -> dict[str, Any]:
    """A message that a model has parsed; `more` goes into the parse, but for keys of the event itself."""
    own = {key: more.pop(key) for key in ("timestamp", "metadata", "message_id", "input_channel") if key in more}
    tokens = [[0, len(text)]] if isinstance(text, str) else []
    ranking = [{"name": name, "confidence": confidence}, {"name": "otro", "confidence": 0.05}]
    parse = {"intent": {"name": name, "confidence": confidence}, "entities": [], "text": text, "text_tokens": tokens}
    number = next(_moments)
    return {
        "event": "user",
        "timestamp": float(number),
        "text": text,
        "message_id": f"id{number}",
        "parse_data": parse | {"intent_ranking": ranking} | more,
        "metadata": {"model_id": "m1"},
    } | own


def payload(text: str = "/saludar") -> dict[str, Any]:
    ranking = [{"name": text[1:], "confidence": 1.0}]
    return user(text, text[1:], 1.0, intent_ranking=ranking, text_tokens=None)


def event(kind: str, **more: Any) -> dict[str, Any]:
    return {"event": kind, "timestamp": float(next(_moments)), **more}


def action(name: str, **more: Any) -> dict[str, Any]:
    return event("action", name=name, policy="RulePolicy", confidence=1.0, **more)


def start() -> list[dict[str, Any]]:
    """What begins a session in Rasa 3."""
    metadata = {"name": "session_started_metadata", "value": {}}
    return [
        event("slot", **metadata),
        action("action_session_start"),
        event("session_started"),
        event("slot", **metadata),
        action("action_listen"),
    ]


def rows(*events: Any) -> list[tuple[int, str | None, float | None, str | None]]:
    """Rows of one sender as a source gives them; a text stands for itself."""
    return [
        (number, None, None, one if one is None or isinstance(one, str) else json.dumps(one))
        for number, one in enumerate(events, 1)
    ]


def put(connection: Any, events: list[tuple[str, Any]], *, mark: str = "?") -> None:
    """Add the events of senders to a tracker store; a text stands for itself. By a cursor of either database."""
    cursor = connection.cursor()
    for sender, one in events:
        text = one if isinstance(one, str) else json.dumps(one)
        what = one if isinstance(one, dict) else {"event": "user"}
        name = what.get("name") if isinstance(what.get("name"), str) else None
        cursor.execute(
            f"INSERT INTO events (sender_id, type_name, timestamp, action_name, data) VALUES ({', '.join([mark] * 5)})",
            (sender, what["event"], what.get("timestamp"), name, text),
        )
    connection.commit()


def tracker(path: Path, events: list[tuple[str, Any]]) -> sqlite3.Connection:
    """A SQLite tracker store at `path`, open to add more."""
    connection = sqlite3.connect(path)
    connection.execute(TRACKER.format("INTEGER PRIMARY KEY"))
    put(connection, events)
    return connection


def tell(store: Any, tmp_path: Path, conversations: dict[str, list[dict[str, Any]]]) -> Any:
    """Read what these people did, each a list of events with their time stamps."""
    lines = [json.dumps({"sender_id": who, **one}) for who, events in conversations.items() for one in events]
    path = tmp_path / "events.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    from genesis_lab.review.ingest import ingest

    ingest(store, str(path))
    return store


def frame(store: Any, query: Any) -> Any:
    """The rows of a query of the store, as a pandas table."""
    import pandas as pd

    from genesis_lab.review.store import records

    return pd.DataFrame(records(store, query))


def annotate(
    store: Any,
    message: str,
    intent: str | None,
    entities: Any = None,
    note: str | None = None,
    *,
    author: str | None = None,
    seconds: float | None = None,
) -> dict[str, Any]:
    """One label, as a person gives it."""
    from genesis_lab.review.labelling import annotate_all

    said = {"message": message, "intent": intent, "entities": entities, "note": note, "seconds": seconds}
    return annotate_all(store.by(author or ""), [said])[0]
