"""Kinds of series and what their recipes may say, as data; the priors of recipes, and how these are moved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from genesis_lab.errors import InvalidInput, sentence
from genesis_lab.files import resolve
from genesis_lab.yamls import read_yaml, shipped

Values = NDArray[np.float64]
Prior = tuple[Literal["log", "lin", "logit"], float, Annotated[float, Field(ge=0)]]
SECTORS = {"electricity": 0.5, "energy": 0.2, "sensors": 0.2, "financial": 0.1}
_HERE = Path(__file__).parent


class Parameter(BaseModel):
    """One thing a recipe says: what it means, its bounds, and what it is drawn from."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    means: str
    low: float
    high: float
    prior: Prior


class Kind(BaseModel):
    """One kind of series, as ``types.yaml`` lists them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sector: Literal["electricity", "energy", "sensors", "financial"]
    family: Literal["load", "solar", "wind", "weather", "price", "volume"]
    unit: str
    low: float = -np.inf
    high: float = np.inf
    level: tuple[float, float]
    resolution: float = Field(gt=0)
    seasonality: tuple[Literal["daily", "weekly", "yearly"], ...] = ()
    en: str
    es: str
    share: float = Field(0.01, gt=0)
    priors: dict[str, Prior] = {}

    @model_validator(mode="after")
    def _fits(self) -> Kind:
        unknown = set(self.priors) - set(families()[self.family])
        if unknown:
            raise ValueError(f"family {self.family} has no parameter {sorted(unknown)[0]}")
        if not self.low <= self.level[0] <= self.level[1] <= self.high:
            raise ValueError(f"level {self.level} must rise and lie between {self.low} and {self.high}")
        return self


@cache
def families() -> dict[str, dict[str, Parameter]]:
    """Family to its parameters by name."""
    known = shipped(_HERE / "families.yaml")
    return {name: {key: Parameter(**p) for key, p in one["parameters"].items()} for name, one in known.items()}


def kinds(source: str = "") -> dict[str, Kind]:
    """The kinds that ship, with those of a user's YAML file added or in their place.

    Raises
    ------
    InvalidInput : the file lacks something; the message names the kind and the field.
    """
    found = dict(shipped(_HERE / "types.yaml"))
    if source:
        own = read_yaml(resolve(source))
        if not isinstance(own, Mapping):
            raise InvalidInput(f"{source} must map names of kinds to what they are.")
        found |= own
    made = {}
    for name, kind in found.items():
        try:
            made[name] = Kind.model_validate(kind)
        except ValidationError as error:
            raise InvalidInput(f"kind {name}: {sentence(error)}") from None
    return made


ODDITY = "oddity"
"""The move that says how much odder the odd ones are: a log-normal factor on all that one series is drawn by."""
Moves = Mapping[str, tuple[float, ...]]
"""Parameter (``family.name``) to how its prior is moved, whatever the kind: a user's series are one population.

Three numbers: how far the median is moved, in spreads; the logarithm of what the spread is multiplied by; and, -1 to 1,
how far the parameter goes with what all those of a series have in common, as works and households differ in many ways.
"""


def known_moves(source: str, chosen: Iterable[str]) -> dict[str, Moves]:
    """For each chosen kind that they are for, the moves in a file of `tune_priors` or shipped under that name."""
    if not source:
        return {}
    path = _HERE / f"priors_{source}.yaml"
    data = shipped(path) if path.is_file() else read_yaml(resolve(source))
    moves = data.get("moves") if isinstance(data, Mapping) else None
    names = {ODDITY} | {f"{family}.{name}" for family, parameters in families().items() for name in parameters}
    if not isinstance(moves, Mapping) or not set(moves) <= names:
        raise InvalidInput(f"{source} holds no priors: it needs moves of the parameters of families.yaml.")
    found = {name: tuple(map(float, move)) for name, move in moves.items()}
    return {name: found for name in chosen if name in data.get("types", [name])}


def drawn(kind: Kind, z: Values, moves: Moves) -> dict[str, Values]:
    """Parameters of n recipes from standard normal `z` of shape (n, parameters of the family and two more)."""
    odd, table = moves.get(ODDITY, (0.0,))[0], families()[kind.family]
    own, common = z[:, :-2] * np.exp(odd * z[:, -2:-1] - odd**2 / 2), z[:, -1:]
    rows = []
    for name, p in table.items():
        move = moves.get(f"{kind.family}.{name}")
        shape, *prior = p.prior if move else kind.priors.get(name, p.prior)
        rows.append((shape == "log", shape == "lin", *prior, p.low, p.high, *(*(move or ()), 0.0, 0.0, 0.0)[:3]))
    log, lin, median, spread, low, high, shift, widened, along = np.array(rows).T
    step = (spread * (shift + np.exp(widened) * (np.sqrt(1 - along**2) * own + along * common))).clip(-50, 50)
    odds = np.exp(step)
    with np.errstate(all="ignore"):  # each shape's formula is for its own columns
        logit = 1 / (1 + (1 / median - 1) / odds)
    values = np.where(log, median * odds, np.where(lin, median + step, logit)).clip(low, high)
    return dict(zip(table, values.T, strict=True))


def level_of(kind: Kind, z: Values) -> Values:
    """Levels spread over the kind's range, evenly on a log scale where it is positive, from standard normal numbers."""
    from scipy.special import ndtr

    low, high = kind.level
    u = np.asarray(ndtr(z), dtype=float)
    return low * (high / low) ** u if low > 0 else low + (high - low) * u
