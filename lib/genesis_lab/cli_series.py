"""The command `genesis tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, cast

from typer import Argument, Option, echo

from genesis_lab.terminal import Replace, lines, pairs

ELECTRICITY = ["residential_consumption", "commercial_consumption", "industrial_load", "grid_demand"]
MEASURED = 10
"""Series that must be there to say what generated ones are worth."""


def tune(
    file: Annotated[str, Argument(help="Your series: JSONL with a list of values in each, or a long or wide CSV.")],
    out: Annotated[Path, Option(metavar="FILE", help="YAML file to write; parameter priors takes it.")],
    types: Annotated[list[str], Option("--type", metavar="TYPE", help="Kind they are of. Repeatable.")] = [],
    field: Annotated[list[str], Option("--field", metavar="OURS=THEIRS", help="For example target=kwh.")] = [],
    seconds: Annotated[float, Option(min=1, help="Search for so long at most.")] = 75.0,
    replace: Replace = False,
) -> None:
    """Tune the priors of time series to your own; no series is copied."""
    import yaml

    from genesis_lab.dataset.sources import read_records
    from genesis_lab.domains import get_domain
    from genesis_lab.domains.timeseries.tuning import comparable, records_of, sample, tune_priors
    from genesis_lab.files import check_free, resolve, shown, write_atomically
    from genesis_lab.training.evaluation import equivalence_sentence
    from genesis_lab.training.forecasts import NEEDED, hours_of, taught_by, worth

    check_free(resolve(out), replace=replace, ours=Path.is_file)
    domain = get_domain("timeseries", series_types=types or ELECTRICITY)
    kinds = cast(Any, domain).kinds
    series, start, frequency, said = comparable(read_records(file, domain, pairs(field)))
    echo(f"{said}, against {', '.join(kinds)}", err=True)

    def lessons(values: Any) -> Any:
        return hours_of(domain.name, records_of(values, start, frequency))

    real = lessons(series)
    error = taught_by(real) if len(real) > MEASURED else None
    found = tune_priors(series, kinds, start=start, frequency=frequency, seconds=seconds, error=error)
    about = f"# Priors tuned to {said} by genesis tune.\n"
    write_atomically(resolve(out), about + yaml.safe_dump(found, sort_keys=False))
    echo(f"mean KS {found['mean_ks']['before']} before, {found['mean_ks']['after']} after, {found['seconds']} s")
    lines(f"nearest, {pair}: {distance}" for pair, distance in found["nearest"].items())
    for when, moves in {"before": {}, "after": found["moves"]}.items() if error else ():
        made = lessons(sample(kinds, moves, start, frequency, series.shape[1], 1, 300))
        one = worth(made, real, forecasters=["boosting"], splits=2)["students"][0]
        says = equivalence_sentence(one["equivalence"], of="of these series, which it was tuned to")
        echo(f"300 series {when}: MASE {one['mase']['estimate']:.2f}, {says}")
    if not error:
        echo(f"worth not measured: it takes more than {MEASURED} hourly series of {NEEDED} values or more")
    echo(f"written to {shown(resolve(out))}: parameter priors takes it")
