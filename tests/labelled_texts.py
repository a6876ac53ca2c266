"""A few intents in two languages, easy but not trivial to tell apart, as examples and as a dataset on disk."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from genesis_lab.dataset import Dataset, DatasetWriter

PHRASES = {
    ("card_arrival", "en"): [
        "my card has not arrived",
        "where is the card you sent",
        "still waiting for my card in the post",
    ],
    ("card_arrival", "es"): [
        "mi tarjeta no ha llegado",
        "dónde está la tarjeta",
        "sigo esperando la tarjeta en el correo",
    ],
    ("exchange_rate", "en"): [
        "what rate do you use for dollars",
        "how is the exchange rate set",
        "is the rate fair today",
    ],
    ("exchange_rate", "es"): [
        "qué cambio aplicáis al dólar",
        "cómo se fija el tipo de cambio",
        "es justo el cambio hoy",
    ],
    ("change_pin", "en"): ["how do I change my pin", "I want a new pin code", "can the pin be reset at a cash machine"],
    ("change_pin", "es"): ["cómo cambio mi pin", "quiero un código pin nuevo", "puedo cambiar el pin en el cajero"],
}
OPENERS = {
    "en": ["", "hi, ", "hello there, ", "quick question: ", "please help, ", "sorry, "],
    "es": ["", "hola, ", "buenas, ", "una pregunta: ", "ayuda por favor, ", "perdón, "],
}
CLOSERS = {"en": ["", " thanks"], "es": ["", " gracias"]}


def labelled() -> list[tuple[str, str, str]]:
    """216 rows of text, intent, language; all texts differ."""
    return [
        (f"{opener}{phrase}{closer}", intent, language)
        for (intent, language), phrases in PHRASES.items()
        for phrase, opener, closer in product(phrases, OPENERS[language], CLOSERS[language])
    ]


def write_dataset(path: Path, rows: list[tuple[str, str, str]], splits: dict[str, list] | None = None) -> Dataset:
    """A dataset folder of one-turn conversations; `splits` (name → rows) instead of `rows` for several splits."""
    with DatasetWriter(path, "conversations") as writer:
        for split, part in (splits or {"train": rows}).items():
            writer.write(
                [
                    {
                        "conversation_id": f"{split}-{number}",
                        "intent": intent,
                        "language": language,
                        "turn_count": 1,
                        "turns": [{"speaker": "customer", "text": text}],
                    }
                    for number, (text, intent, language) in enumerate(part)
                ],
                split,
            )
    from genesis_lab.dataset import open_dataset

    return open_dataset(path)
