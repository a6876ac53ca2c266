"""The record browser: what it finds, what it shows, what a person decides in it; as a widget and as a file."""

from __future__ import annotations

import base64
import gzip
import json
import re
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pyarrow as pa
import pytest

from genesis_lab.dataset import open_dataset, write_report
from genesis_lab.dataset.curation import standing
from genesis_lab.errors import InvalidInput
from genesis_lab.generation import config_for, generate
from genesis_lab.reporting.browser import Action, Browser, browser_of
from genesis_lab.reporting.html import Html, escape
from records import conversation, write

TABLE = pa.table(
    {
        "name": ["a", "b", "b", None],
        "said": ["¿Dónde está María?", "<b>where</b> is MARIA", "nothing", None],
        "score": [0.5, 0.9, None, 0.1],
        "tags": [["x"], ["x", "y"], [], None],
    }
)


def browser(rows=TABLE, **options) -> Browser:
    filters = {"name": "name", "score": "score", "tags": "tags"}
    given = {"key": "name", "text": "said", "filters": filters, "preview": lambda row: Html(escape(row["said"]))}
    return Browser(rows, **given | options)


def found(one: Browser, words: str = "", **where) -> list[int]:
    return [row["row"] for row in one.ask(one._chosen(where), words)["rows"]]


@pytest.mark.parametrize("rows", [TABLE, duckdb.from_arrow(TABLE)], ids=["arrow", "relation"])
def test_full_text_folds_case_and_accents_and_takes_whole_phrases(rows) -> None:
    one = browser(rows)
    assert found(one, "maria") == found(one, "MARÍA") == [0, 1]
    assert found(one, "maria donde") == [0] and found(one, '"esta maria"') == [0] and found(one, '"maria esta"') == []
    assert found(one, "where</b>") == [1]


def test_filters_by_value_range_and_what_a_list_holds() -> None:
    one = browser()
    assert found(one, name="b") == [1, 2] and found(one, name=["a", ""]) == [0, 3]
    assert found(one, score={"from": 0.5}) == [0, 1] and found(one, score={"from": 0.2, "to": 0.8}) == [0]
    assert found(one, tags="x") == [0, 1] and found(one, tags=["y"], name="b") == [1]
    with pytest.raises(InvalidInput, match="Nothing is filtered by 'nmae' here: there is name, score, tags"):
        browser(where={"nmae": "b"})


def test_counts_of_a_filter_are_of_what_the_others_leave() -> None:
    one = browser()
    answer = one.ask(one._chosen({"name": "b", "tags": "x"}))
    assert answer["total"] == 1 and dict(answer["counts"]["f0"]) == {"a": 1, "b": 1}
    assert answer["counts"]["f1"] == {"low": 0.9, "high": 0.9}


def test_each_row_opens_as_itself_where_names_repeat_or_are_missing() -> None:
    one = browser()
    shown = [one.open(row)["html"] for row in range(4)]
    assert shown == ["¿Dónde está María?", "&lt;b&gt;where&lt;/b&gt; is MARIA", "nothing", "None"]
    with pytest.raises(InvalidInput, match="There is no row 4"):
        one.open(4)


def test_actions_are_carried_out_by_the_caller() -> None:
    done = []

    def act(row, key, name, value, why):
        done.append((row, key, name, value, why))
        return "approved"

    one = browser(actions=[Action("a", "approve")], act=act)
    assert one.act(1, "approve", why="fine") == {"row": 1, "mark": "approved"}
    assert done == [(1, "b", "approve", None, "fine")] and found(one, mark="approved") == [1]
    with pytest.raises(InvalidInput, match="Nothing is done under the name 'delete'"):
        one.act(1, "delete")


@pytest.fixture
def data(tmp_path: Path):
    return write(tmp_path / "data", [conversation(i) for i in range(12)])


def test_the_widget_answers_each_message_under_its_number(data) -> None:
    widget, sent = browser_of(data, {"language": "es"}).widget(), []
    widget.send = lambda content: sent.append(json.loads(json.dumps(content)))

    def tell(number, does, **given):
        widget._answer(None, {"number": number, "does": does, "with": given}, None)
        return sent[-1]

    assert widget.about["total"] == 12 and widget.about["where"] == {"f1": ["es"]}
    assert tell("1", "ask", where=widget.about["where"], words="TARJETA", offset=0, limit=3)["answer"]["total"] == 6
    opened = tell("2", "open", row=1)
    assert opened["number"] == "2" and "¿Dónde está mi tarjeta número 1?" in opened["answer"]["html"]
    assert tell("3", "act", row=1, name="fix", value={"turns.0.text": "Hola"}, why="")["answer"]["mark"] == "fix"
    assert tell("4", "act", row=1, name="relabel", value="", why="") == {
        "number": "4",
        "error": "A label is missing: say which one is right.",
    }
    assert standing(open_dataset(data.path))[1]["parts"] == {"turns.0.text": "Hola"}
    assert browser_of(data).ask({"mark": ["fix"]})["total"] == 1


def test_offenders_of_a_check_are_filtered_by_it_and_say_why(data) -> None:
    offences = [{"row": 3, "record_id": "x", "reason": "opens nearly like row 1"}]
    write_report(data, "quality", {"diversity": {"parts": [{"name": "near_duplicates", "offences": offences}]}})
    one = browser_of(data)
    assert found(one, **{"check failed": "near_duplicates"}) == [3] and found(one, alike="like row 2") == [1, 3]
    assert ["near_duplicates", "opens nearly like row 1"] in one.open(3)["tags"]


def test_a_list_with_texts_stands_in_where_nobody_sits(data) -> None:
    said = browser_of(data, {"intent": "atm_support"}).few().text
    assert "3 of 12 conversations" in said and "Where is my card number 2?" in said


def unpacked(page: str, name: str) -> str:
    packed = re.search(f'<script type="text/plain" id="{name}">([^<]*)</script>', page)
    return gzip.decompress(base64.b64decode(packed[1])).decode()


def test_the_file_holds_the_same_rows_and_front_end_and_fetches_nothing(data, tmp_path: Path) -> None:
    nasty = conversation(12)
    nasty["turns"][0]["text"] = "</script><script>alert(1)</script>"
    one = browser_of(write(tmp_path / "nasty", [*(conversation(i) for i in range(300)), nasty]))
    page = one.write(tmp_path / "page.html").read_text(encoding="utf-8")
    assert "default-src 'none'" in page and "alert(1)" not in page and not re.search(r'(src|href)="http', page)
    index = json.loads(unpacked(page, "index"))
    assert len(index["key"]) == 301 and index["f1"]["values"] == ["en", "es"]
    assert json.loads(unpacked(page, "chunk0"))[7]["html"] == [one.open(7)["html"]]
    assert "&lt;/script&gt;" in json.loads(unpacked(page, "chunk1"))[-1]["html"][0]
    assert unpacked(page, "folded").split("\n")[1].startswith("¿donde esta mi tarjeta numero 1?")


@pytest.mark.parametrize("domain", ["timeseries", "requirements", "vision"])
def test_records_of_every_domain_are_shown(domain: str) -> None:
    if domain == "vision":
        generate(config_for("requirements")(dataset="source", total=12))
    options = {"requirements": "source"} if domain == "vision" else {}
    one = browser_of(generate(config_for(domain)(total=12, **options)))
    assert one.ask()["total"] == 12 and len(one.open(0)["html"]) > 200 and one.open(0)["parts"]
    assert SimpleNamespace(**one.about()).unit in one.few().text
