from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genesis_lab.errors import InvalidInput
from genesis_lab.generation.journal import Journal


@settings(max_examples=40, deadline=None)
@given(
    entries=st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=20)), max_size=8), cut=st.integers(0, 400)
)
def test_cutting_the_file_anywhere_loses_at_most_the_torn_line(tmp_path_factory, entries, cut):
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    with Journal(path, {"plan": "x"}) as journal:
        offsets = [journal.append(entry) for entry in entries]
    data = path.read_bytes()
    path.write_bytes(data[: max(0, len(data) - cut)])
    whole = sum(1 for end in [*offsets[1:], len(data)][: len(entries)] if end <= len(data) - cut)
    with Journal(path, {"plan": "x"}) as journal:
        assert [entry for _, entry in journal.entries()] == entries[:whole]
        journal.append({"kind": "after"})
        assert [entry for _, entry in journal.entries()][-1] == {"kind": "after"}


def test_offsets_lead_back_to_the_entries(tmp_path):
    with Journal(tmp_path / "j" / "journal.jsonl", {"plan": "x"}) as journal:
        offsets = [journal.append({"n": n, "text": "ñ"}) for n in range(5)]
        assert [offset for offset, _ in journal.entries()] == offsets
        assert [entry["n"] for entry in journal.read(offsets[::-1])] == [4, 3, 2, 1, 0]


def test_another_header_is_refused_by_name(tmp_path):
    with Journal(tmp_path / "journal.jsonl", {"plan": "x", "total": 5}):
        pass
    with pytest.raises(InvalidInput, match="plan was 'x', now 'y'"):
        Journal(tmp_path / "journal.jsonl", {"plan": "y", "total": 5})


def test_a_damaged_line_in_the_middle_is_skipped(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, {"plan": "x"}) as journal:
        journal.append({"n": 1})
        journal.append({"n": 2})
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + b"\x00\x00garbage\n" + lines[2])
    with Journal(path, {"plan": "x"}) as journal:
        assert [entry for _, entry in journal.entries()] == [{"n": 2}]
