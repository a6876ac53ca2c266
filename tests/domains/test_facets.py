"""What a domain says of itself holds for its records."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pytest

from genesis_lab.domains import get_domain
from genesis_lab.domains.base import Provenance


@pytest.mark.parametrize("name", ["conversations", "requirements", "vision"])
def test_facets_name_columns_that_records_have(name):
    domain = get_domain(name, total=10)
    facets, columns = domain.facets, domain.record_type.model_fields
    named = {facets.id, *facets.attributes, *facets.derived, *facets.derived.values(), *facets.outcomes}
    named |= {column for pair in facets.covered for column in pair} | {facets.label, facets.group} - {None}
    assert named <= set(columns)
    assert {target.name for target in domain.targets()} <= set(facets.attributes)


def test_the_text_of_a_conversation_is_its_opening():
    domain = get_domain("conversations", total=10)
    provenance = Provenance(provider="offline", model="grammar", prompt_version="1")
    spec = domain.specs(10, 1)[0]
    record = domain.render(domain.parse(domain.offline_text(spec, 0), spec), spec, provenance).model_dump(mode="json")
    data = pa.Table.from_pylist([record])  # noqa: F841  (DuckDB reads it by name)
    assert duckdb.sql(f"SELECT {domain.facets.text} FROM data").fetchall() == [(record["turns"][0]["text"],)]
