"""What tests of the review share: a store, the sample's conversations in it, a PostgreSQL server started once."""

from __future__ import annotations

import itertools
import os
import pwd

import pytest

import postgresql_server
from genesis_lab.review.ingest import ingest
from genesis_lab.review.store import open_store
from trackers import SAMPLE


@pytest.fixture(scope="session")
def postgresql_address():
    """``host:port`` of a server of our own."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    if postgresql_server.binaries() is None:
        pytest.skip("there is no initdb: install PostgreSQL (Debian: postgresql)")
    if os.getuid() == 0 and "postgres" not in {user.pw_name for user in pwd.getpwall()}:
        pytest.skip("initdb refuses root, and there is no user postgres")
    with postgresql_server.server() as address:
        yield address


_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def new_database(postgresql_address):
    """Makes an empty database; gives what comes after ``postgresql://login@`` in its address."""
    import psycopg

    def make() -> str:
        name = f"test_{next(_numbers)}"
        with psycopg.connect(f"postgresql://postgres@{postgresql_address}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"{postgresql_address}/{name}"

    return make


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "review.sqlite")


@pytest.fixture
def sample(store):
    ingest(store, str(SAMPLE))
    return store
