"""The exact plan of conversations and utterances: quotas by largest remainder, attributes spread over each other."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from genesis_lab.domains.base import Spec, Target
from genesis_lab.domains.conversations import record as r
from genesis_lab.domains.conversations.options import ConversationsConfig
from genesis_lab.domains.conversations.taxonomy import Taxonomy
from genesis_lab.domains.quotas import asked_for, largest_remainder, spread
from genesis_lab.errors import InvalidInput
from genesis_lab.yamls import shipped

KINDS = ("question", "lower_case", "slip", "greeting")
"""What is true or not of how an utterance is typed."""


def planned_shares(config: ConversationsConfig, taxonomy: Taxonomy, manner: Mapping[str, Any]) -> list[Target]:
    """The share of each value of each attribute: what a record keeps first, then how an utterance is typed."""
    intents, utterances = taxonomy.names, config.records == "utterances"
    targets = [
        Target("intent", dict.fromkeys(intents, 1 / len(intents))),
        Target("category", {k: len(v) / len(intents) for k, v in taxonomy.categories.items()}),
        Target("language", {"en": config.english_share, "es": 1 - config.english_share}),
        Target("sentiment", manner["sentiment"] if utterances else config.sentiment_shares),
    ]
    if utterances:
        kinds = (Target(name, {"yes": manner[name], "no": 1 - manner[name]}) for name in KINDS)
        return [*targets, Target("words", manner["words"]), *kinds]
    ends = {"complexity": config.complexity_shares, "resolution_status": config.resolution_shares}
    ends["resolution_time"] = _plan()["resolution_time"]
    return targets + [Target(name, share) for name, share in ends.items()]


def _plan() -> Any:
    return shipped(Path(__file__).with_name("plan.yaml"))


def make_specs(
    config: ConversationsConfig, taxonomy: Taxonomy, targets: Sequence[Target], total: int, seed: int
) -> list[Spec]:
    """`total` specs whose counts meet every target by largest remainder, spread evenly over each other.

    Where there are cells, exactly those, and what they leave open so.
    """
    rng = np.random.default_rng(seed)
    shares = {target.name: target.shares for target in targets}
    given = asked_for(config.cells, total, shares)
    for cell in config.cells:
        if cell.against is not None and cell.against not in shares["intent"]:
            told = f"cells tell {cell.intent} from {cell.against!r}"
            raise InvalidInput(f"{told}, which is not among the intents planned.")
    fixed = [places + 1 for places in given.values() if (places >= 0).any()]
    intents, categories = taxonomy.names, list(taxonomy.categories)
    category_of = np.array([categories.index(taxonomy.category_of[intent]) for intent in intents])
    codes = {"intent": given["intent"].copy()}
    for category in np.unique(given["category"]):
        among = np.flatnonzero(category_of == category) if category >= 0 else np.arange(len(intents))
        rows = np.flatnonzero((codes["intent"] < 0) & (given["category"] == category))
        even = largest_remainder({str(intent): 1.0 for intent in among}, len(rows))
        ordered = np.repeat(np.arange(len(among)), list(even.values()))
        codes["intent"][rows] = among[spread(even, [g[rows] for g in fixed], rng) if fixed else ordered]
    codes["category"] = category_of[codes["intent"]]
    for i in np.flatnonzero((given["category"] >= 0) & (given["category"] != codes["category"])):
        intent, category = intents[codes["intent"][i]], categories[given["category"][i]]
        raise InvalidInput(f"cells ask for intent {intent} in category {category}, where it does not belong.")
    for name, over_these in _plan()[config.records].items():
        codes[name], rows = given[name], np.flatnonzero(given[name] < 0)
        over = [*(codes[stratum][rows] for stratum in over_these), *(places[rows] for places in fixed)]
        counts = largest_remainder(shares[name], len(rows))
        codes[name][rows] = _in_order(counts, over, rng) if name == "words" else spread(counts, over, rng)
    values = {name: list(map(str, share)) for name, share in shares.items() if name != "category"}
    labels = {name: [among[code] for code in codes[name].tolist()] for name, among in values.items()}
    further = _typed(labels, config) if config.records == "utterances" else _told(labels, config, rng)
    seeds = rng.integers(2**31, size=total).tolist()
    ordinals: Counter[tuple[str, str]] = Counter()
    specs: list[Spec] = []
    columns = [*labels.items(), *further.items()]
    for index in rng.permutation(total).tolist():
        own: dict[str, Any] = {name: of_each[index] for name, of_each in columns}
        ordinal = ordinals[own["intent"], own["language"]]
        specs.append(Spec(len(specs), ordinal, seeds[index], own))
        ordinals[own["intent"], own["language"]] += 1
    return specs


def _in_order(counts: Mapping[str, int], strata: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """As `spread`, for values that have an order: each stratum gets short and long ones alike.

    Along the strata the values, from the lowest to the highest, are gone through in steps of the golden section.
    """
    value = np.repeat(np.arange(len(counts)), list(counts.values()))
    step = next((n for n in range(round(len(value) * 0.618), len(value)) if math.gcd(n, len(value)) == 1), 1)
    order = np.lexsort([rng.random(len(value)), *reversed(strata)])
    result = np.empty_like(value)
    result[order] = value[np.arange(len(value)) * step % max(1, len(value))]
    return result


def _told(labels: Mapping[str, Any], config: ConversationsConfig, rng: np.random.Generator) -> dict[str, list[Any]]:
    """Arc and number of turns of each conversation, which depend on its other attributes."""
    pairs = {
        (sentiment, resolution): [arc for arc in r.ARCS if r.arc_fits(arc, sentiment, resolution)]
        for sentiment in r.SENTIMENTS
        for resolution in r.RESOLUTIONS
    }
    arcs = _dealt(list(zip(labels["sentiment"], labels["resolution_status"], strict=True)), pairs, rng)
    choices = {complexity: config.turn_choices(complexity) for complexity in r.TURN_RANGES}
    return {"emotion_arc": arcs, "turns": _dealt(labels["complexity"], choices, rng)}


def _typed(labels: Mapping[str, Any], config: ConversationsConfig) -> dict[str, list[Any]]:
    """How each utterance is typed as numbers and truth values, and which intent it is told apart from."""
    further: dict[str, list[Any]] = {"words": [int(n) for n in labels["words"]]}
    further |= {name: [value == "yes" for value in labels[name]] for name in KINDS}
    if any(cell.against for cell in config.cells):
        further["against"] = [cell.against or "" for cell in config.cells for _ in range(cell.n)]
    return further


def _dealt(values: Any, choices: Mapping[Any, Sequence[Any]], rng: np.random.Generator) -> list[Any]:
    """For each of `values` one of its choices, all of them equally often."""
    dealt: list[Any] = [None] * len(values)
    places = defaultdict[Any, list[int]](list)
    for place, value in enumerate(values):
        places[value].append(place)
    for value, among in choices.items():
        for i, place in enumerate(rng.permutation(places[value]).tolist()):
            dealt[int(place)] = among[i % len(among)]
    return dealt
