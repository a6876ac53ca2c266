"""Product concepts, combined with a seed: industry × product × region × emphasis, in English and Spanish."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from genesis_lab.domains.answers import terms
from genesis_lab.domains.base import Spec
from genesis_lab.domains.quotas import largest_remainder, spread, whole_groups
from genesis_lab.errors import InvalidInput
from genesis_lab.texts import unaccented
from genesis_lab.yamls import shipped

LANGUAGES = ("en", "es")
_FILE = Path(__file__).with_name("concepts.yaml")


@dataclass(frozen=True)
class Concept:
    """A product idea and the words to speak of it.

    Parameters
    ----------
    text : the idea as a user would type it; what a student is asked about.
    group : industry and product: concepts that share it are near-duplicates, in whatever language.
    words : what the texts of `concepts.yaml` are filled with (product, users, data, region …).
    features : what users want to do, as infinitive phrases.
    qualities, limits : requirements that follow from emphasis and region.
    """

    text: str
    group: str
    language: str
    words: dict[str, str]
    features: tuple[str, ...]
    qualities: tuple[str, ...]
    limits: tuple[str, ...]


def industries() -> tuple[str, ...]:
    """The names of the industries, as they stand in plans and records."""
    return tuple(_knowledge()["industries"])


def emphases() -> tuple[str, ...]:
    """The names of the emphases."""
    return tuple(_knowledge()["emphases"])


def count(language: str | None = None) -> int:
    """How many distinct concepts there are, in one language or in both."""
    k = _knowledge()
    products = sum(len(industry["products"]) for industry in k["industries"].values())
    return products * len(k["regions"]) * len(k["emphases"]) * (1 if language else len(LANGUAGES))


def concept(group: str, region: str, emphasis: str, language: str, variant: int = 0) -> Concept:
    """The concept of these parts; `variant` chooses how it is worded."""
    k = _knowledge()
    industry = k["industries"][group.split("/")[0]]
    product = _products()[group][language]
    place, stress = k["regions"][region], k["emphases"][emphasis][language]
    name = product["name"].partition(" ")[2]
    words = {
        "a_product": product["name"],
        "product": name,
        "users": product["users"],
        "data": product["data"],
        "industry": industry[language],
        "region": place[language],
        "law": place["law"][language],
        "emphasis": stress["name"],
        "do": product["do"][variant % len(product["do"])],
    }
    pattern = k["texts"][language][variant % len(k["texts"][language])]
    return Concept(
        text=filled(pattern, words),
        group=group,
        language=language,
        words=words,
        features=tuple(product["do"]),
        qualities=tuple(stress["qualities"]),
        limits=tuple(stress["limits"]),
    )


def filled(pattern: str, words: dict[str, Any]) -> str:
    """The pattern with its words, and a capital at the start of each sentence that a word begins."""
    text = pattern.format(**words)
    return ". ".join(sentence[:1].upper() + sentence[1:] for sentence in text.split(". "))


def concept_terms(text: str) -> frozenset[str]:
    """The words of a concept that say what it is about."""
    return terms(text, _generic())


def plan(
    total: int,
    seed: int,
    *,
    english_share: float,
    chosen: tuple[str, ...] = (),
    splits: dict[str, float],
) -> list[Spec]:
    """`total` distinct concepts with exact shares of language, industry, emphasis and region, each with its split.

    All concepts of a group get into the same split; the splits' sizes are met as nearly as whole groups allow.

    Raises
    ------
    InvalidInput : there are fewer distinct concepts than are wanted.
    """
    rng = np.random.default_rng(seed)
    k = _knowledge()
    names = chosen or industries()
    shares = {
        "industry": dict.fromkeys(names, 1.0),
        "language": {"en": english_share, "es": 1 - english_share},
        "emphasis": dict.fromkeys(emphases(), 1.0),
    }
    counts = {name: largest_remainder(share, total) for name, share in shares.items()}
    industry = np.repeat(np.arange(len(names)), list(counts["industry"].values()))
    product = np.empty(total, dtype=np.int64)
    for i, name in enumerate(names):
        members = np.flatnonzero(industry == i)
        product[members] = np.resize(rng.permutation(len(k["industries"][name]["products"])), len(members))
    language = spread(counts["language"], [industry, product], rng)
    emphasis = spread(counts["emphasis"], [language, industry, product], rng)
    used, kinds = [name for name, share in splits.items() if share > 0], industry * 1_000 + product
    group = np.unique(kinds, return_inverse=True)[1]
    split = whole_groups(group, language, [splits[name] for name in used], rng)[group]
    values = {"language": list(shares["language"]), "emphasis": list(shares["emphasis"])}
    regions, first = list(k["regions"]), rng.integers(len(k["regions"]), size=total)
    ordinals: Counter[tuple[int, ...]] = Counter()
    offsets: dict[tuple[int, ...], int] = {}
    seeds = rng.integers(2**31, size=total)
    specs: list[Spec] = []
    for i in rng.permutation(total):
        cell = (int(industry[i]), int(product[i]), int(language[i]), int(emphasis[i]))
        ordinal, ordinals[cell] = ordinals[cell], ordinals[cell] + 1
        if ordinal == len(regions):
            most = count() * len(names) // len(industries())
            raise InvalidInput(
                f"total: {len(names)} industries make at most {most:,} distinct concepts, evenly spread ones fewer, got "
                f"{total:,}: choose more industries or a smaller total."
            )
        place = (offsets.setdefault(cell, int(first[i])) + ordinal) % len(regions)
        attributes = {name: values[name][code] for name, code in zip(values, cell[2:], strict=True)}
        attributes |= {"industry": names[cell[0]], "group": _groups(names[cell[0]])[cell[1]], "region": regions[place]}
        specs.append(Spec(len(specs), ordinal, int(seeds[i]), attributes | {"split": used[int(split[i])]}))
    return specs


@cache
def _products() -> dict[str, dict[str, Any]]:
    """Group to product: ``finance/budget-planner``."""
    return {
        f"{name}/{'-'.join(unaccented(product['en']['name']).split()[1:])}": product
        for name, industry in _knowledge()["industries"].items()
        for product in industry["products"]
    }


@cache
def _groups(industry: str) -> tuple[str, ...]:
    return tuple(group for group in _products() if group.startswith(f"{industry}/"))


@cache
def _generic() -> frozenset[str]:
    return frozenset(unaccented(word) for words in _knowledge()["generic_words"].values() for word in words)


def _knowledge() -> Any:
    return shipped(_FILE)
