"""Product concepts, combined with a seed: industry × product × region × emphasis, in English and Spanish."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from genesis_lab.domains.base import Spec
from genesis_lab.domains.quotas import largest_remainder, spread, whole_groups
from genesis_lab.domains.reading import terms
from genesis_lab.errors import InvalidInput
from genesis_lab.texts import unaccented
from genesis_lab.yamls import shipped

Shares = dict[str, dict[str, float]]
"""Attribute to value to its share."""


@dataclass(frozen=True)
class Concept:
    """A product idea and the words to speak of it."""

    text: str  # the idea as a user would type it; what a student is asked about
    group: str  # industry and product: concepts that share it are near-duplicates, in whatever language
    language: str
    words: dict[str, str]  # what the texts of `concepts.yaml` are filled with (product, users, data, region …)
    features: tuple[str, ...]  # what users want to do, as infinitive phrases
    qualities: tuple[str, ...]  # non-functional requirements that follow from the emphasis
    limits: tuple[str, ...]  # constraints that follow from emphasis and region


class Pen:
    """What the offline teacher writes with: a concept's words, and numbers drawn for one text."""

    def __init__(self, concept: Concept, rng: np.random.Generator) -> None:
        self.words: dict[str, Any] = dict(concept.words)
        self.rng = rng
        for name, among in _knowledge()["numbers"].items():
            choices = among if isinstance(among, list) else range(among["from"], among["to"] + 1)
            self.words[name] = choices[rng.integers(len(choices))]

    def write(self, pattern: str, **more: Any) -> str:
        """A pattern filled with the words."""
        return filled(pattern, self.words | more)

    def some(self, choices: Sequence[str], n: int = 1, **more: Any) -> list[str]:
        """`n` different ones of some patterns, filled."""
        return [self.write(choices[i], **more) for i in self.rng.permutation(len(choices))[:n]]


def industries() -> tuple[str, ...]:
    """The names of the industries, as they stand in plans and records."""
    return tuple(_knowledge()["industries"])


def count() -> int:
    """How many distinct concepts there are in either language."""
    return len(_products()) * len(_knowledge()["regions"]) * len(_knowledge()["emphases"])


def concept(group: str, region: str, emphasis: str, language: str, variant: int = 0) -> Concept:
    """The concept of these parts; `variant` chooses how it is worded. ``KeyError`` for a part that is not ours."""
    k = _knowledge()
    product, stress, place = _products()[group][language], k["emphases"][emphasis][language], k["regions"][region]
    words = {
        "a_product": product["name"],
        "product": product["name"].partition(" ")[2],
        "users": product["users"],
        "data": product["data"],
        "industry": k["industries"][group.split("/")[0]][language],
        "region": place[language],
        "law": place["law"][language],
        "emphasis": stress["name"],
        "do": product["do"][variant % len(product["do"])],
    }
    text = filled(k["texts"][language][variant % len(k["texts"][language])], words)
    lists = (tuple(each) for each in (product["do"], stress["qualities"], stress["limits"]))
    return Concept(text, group, language, words, *lists)


def filled(pattern: str, words: Mapping[str, Any]) -> str:
    """The pattern with its words, and a capital at the start of each sentence that a word begins."""
    text = pattern.format(**words)
    return ". ".join(sentence[:1].upper() + sentence[1:] for sentence in text.split(". "))


def concept_terms(text: str) -> frozenset[str]:
    """The words of a concept that say what it is about."""
    return terms(text, _generic())


def shares(english: float, chosen: tuple[str, ...] = ()) -> Shares:
    """What a plan should hold of each language, industry (none chosen: all) and emphasis."""
    names, emphases = chosen or industries(), tuple(_knowledge()["emphases"])
    return {
        "language": {"en": english, "es": 1 - english},
        "industry": dict.fromkeys(names, 1 / len(names)),
        "emphasis": dict.fromkeys(emphases, 1 / len(emphases)),
    }


def plan(total: int, seed: int, shares: Shares, splits: Mapping[str, float]) -> list[Spec]:
    """`total` distinct concepts with exact shares of language, industry, emphasis and region, each with its split.

    All concepts of a group get into the same split; the splits' sizes are met as nearly as whole groups allow.
    `InvalidInput` where there are fewer distinct concepts than are wanted.
    """
    rng, regions, names = np.random.default_rng(seed), list(_knowledge()["regions"]), list(shares["industry"])
    counts = {name: largest_remainder(share, total) for name, share in shares.items()}
    products = [[group for group in _products() if group.startswith(f"{name}/")] for name in names]
    industry = np.repeat(np.arange(len(names)), list(counts["industry"].values()))
    sizes = zip(map(len, products), counts["industry"].values(), strict=True)
    product = np.concatenate([np.resize(rng.permutation(most), n) for most, n in sizes])
    language = spread(counts["language"], [industry, product], rng)
    emphasis = spread(counts["emphasis"], [language, industry, product], rng)
    used = [name for name, share in splits.items() if share > 0]
    group = np.unique(industry * 1_000 + product, return_inverse=True)[1]
    split = whole_groups(group, language, [splits[name] for name in used], rng)[group]
    region, seeds = rng.integers(len(regions), size=total), rng.integers(2**31, size=total)
    first: dict[tuple[int, ...], int] = {}  # the region that a cell begins with
    ordinals: Counter[tuple[int, ...]] = Counter()
    specs: list[Spec] = []
    for i in rng.permutation(total):
        cell = (int(group[i]), int(language[i]), int(emphasis[i]))
        ordinal, ordinals[cell] = ordinals[cell], ordinals[cell] + 1
        if ordinal == len(regions):
            most = 2 * count() * len(names) // len(industries())
            held = f"{len(names)} industries make at most {most:,} distinct concepts, evenly spread ones fewer"
            raise InvalidInput(f"total: {held}, got {total:,}: choose more industries or a smaller total.")
        attributes = {
            "language": list(shares["language"])[cell[1]],
            "emphasis": list(shares["emphasis"])[cell[2]],
            "industry": names[industry[i]],
            "group": products[industry[i]][product[i]],
            "region": regions[(first.setdefault(cell, int(region[i])) + ordinal) % len(regions)],
            "split": used[split[i]],
        }
        specs.append(Spec(len(specs), ordinal, int(seeds[i]), attributes))
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
def _generic() -> frozenset[str]:
    return frozenset(unaccented(word) for words in _knowledge()["generic_words"].values() for word in words)


def _knowledge() -> Any:
    return shipped(Path(__file__).with_name("concepts.yaml"))
