"""Rasa's training data: read as Rasa reads it, added to line by line, nothing changed without a word."""

from __future__ import annotations

import difflib
import json
import os
import subprocess
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from genesis_lab.cli import app
from genesis_lab.errors import GenesisError, InvalidInput
from genesis_lab.review.labelling import read_examples
from genesis_lab.review.loop import taxonomy_from
from genesis_lab.review.nlu import check, read_data
from genesis_lab.review.nlu_file import read_source
from genesis_lab.review.nlu_merge import plan_merge, versions, write
from genesis_lab.settings import get_settings

STYLES = {
    "block": 'version: "3.1"\nnlu:\n- intent: saludar\n  examples: |\n    - hola\n    - buenos días\n',
    "indented": "nlu:\n  - intent: saludar\n    examples: |\n      - hola\n\n  - intent: otro\n    examples: |\n      - x\n",
    "list": "nlu:\n- intent: saludar\n  examples:\n  - text: |\n      hola\n  - text: 'qué tal'\n    metadata:\n      sentiment: good\n",
    "folded": "nlu:\n- intent: saludar\n  examples: >\n    - hola\n    - buenas\n- intent: otro\n  examples: |\n    - x\n",
    "folded, blank lines": "nlu:\n- intent: saludar\n  examples: >\n    - hola\n\n    - buenas\n",
    "crlf": 'version: "3.1"\r\nnlu:\r\n- intent: saludar\r\n  examples: |\r\n    - hola\r\n    - buenas\r\n- intent: otro\r\n  examples: |\r\n    - x\r\n',
    "ascii with escapes": "nlu:\n- intent: saludar\n  examples: |\n    - buenos d\\u00edas\n    - hola \\U0001f600\n",
    "comments": "# head\nnlu:  # list\n# greeting\n- intent: saludar  # name\n  examples: |\n    - hola\n    # not yet\n    - buenas\n# next\n- intent: otro\n  examples: |\n    - x\n# end\n",
    "retrieval": "nlu:\n- intent: faq/precio\n  examples: |\n    - cuánto vale\n- intent: saludar\n  examples: |\n    - hola\n",
    "lookups after": "nlu:\n- intent: saludar\n  examples: |\n    - hola\n- lookup: persona\n  examples: |\n    - Ana\n- regex: monto\n  examples: |\n    - \\d+\n- synonym: ahorro\n  examples: |\n    - ahorros\n",
    "mixed file": "version: '3.1'\nintents: [saludar]\nresponses:\n  utter_x:\n  - text: hola\nnlu:\n- intent: saludar\n  examples: |\n    - hola\nstories:\n- story: a\n  steps:\n  - intent: saludar\nrules: []\n",
    "no last newline": "nlu:\n- intent: saludar\n  examples: |\n    - hola\n    - buenas",
    "list without last newline": "nlu:\n- intent: saludar\n  examples:\n  - text: hola\n  - text: \"buenas\"",
    "quoted": "nlu:\n- intent: \"saludar\"\n  examples: \"- hola\\n- buenas\"\n- intent: otro\n  examples: |\n    - x\n",
    "flow item": "nlu:\n- {intent: saludar, examples: [{text: hola}]}\n- {intent: otro, examples: '- x'}\n",
    "examples first": "nlu:\n- examples: |\n    - hola\n    - buenas\n  intent: saludar\n",
    "metadata": "nlu:\n- intent: saludar\n  metadata:\n    sentiment: neutral\n  examples: |\n    - hola\n",
    "strip and keep": "nlu:\n- intent: saludar\n  examples: |-\n    - hola\n\n\n- intent: otro\n  examples: |+\n    - x\n\n",
    "wide indent": "nlu:\n    -   intent: saludar\n        examples: |2\n          - hola\n          - buenas\n",
    "byte order mark": "\ufeffversion: \"3.1\"\nnlu:\n- intent: saludar\n  examples: |\n    - hola ñ\n",
    "entities": "nlu:\n- intent: saludar\n  examples: |\n    - soy [Ana](persona)\n    - soy [Eva]{\"entity\": \"persona\", \"role\": \"de\", \"value\": \"Eva M\"}\n    - de [A][{\"entity\": \"x\"}, {\"entity\": \"y\", \"group\": \"1\"}]\n",
    "yes and no": "nlu:\n- intent: yes\n  examples: |\n    - sí\n- intent: saludar\n  examples: |\n    - hola\n",
    "several items": "nlu:\n- intent: saludar\n  examples: |\n    - hola\n- intent: otro\n  examples: |\n    - x\n- intent: saludar\n  examples: |\n    - buenas\n",
}  # fmt: skip
ODD = [
    "-5 grados",
    "# hola",
    "qué \u2028 tal",
    "a\x07b",
    "línea\notra",
    "c:\\users",
    "\\u00e1",
    "\ufeffx",
    "¿y?: \"sí\" 'no' {a} [b]",
]


def one(text, intent="saludar", entities=()):
    return {"intent": intent, "text": text, "entities": list(entities)}


def folder_of(tmp_path, text, name="nlu.yml"):
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / name).write_bytes(text.encode())
    return tmp_path / "data"


def keys(source):
    return sorted((row["intent"], row["text"], json.dumps(row["entities"])) for row in source.examples)


@pytest.mark.parametrize("text", ["muy buenas", "soy ñandú 💩", *ODD])
@pytest.mark.parametrize("style", STYLES)
def test_one_example_is_one_line_and_all_else_stays_byte_by_byte(style, text, tmp_path):
    before = STYLES[style]
    merge = plan_merge(folder_of(tmp_path, before), [one(text)])
    if merge.refused:  # only what a pure ASCII file can't hold: what Rasa decodes before it reads YAML
        assert before.isascii() and text in ("\ufeffx",), merge.refused
        assert not merge.files
        return
    (old, new) = merge.files["nlu.yml"]
    lines, was = new.splitlines(keepends=True), old.splitlines(keepends=True)
    added = next(at for at in range(len(was) + 1) if lines[:at] + lines[at + 1 :] == was)
    assert lines[added].endswith("\r\n" if style == "crlf" else "\n")
    source = read_source("nlu.yml", new)
    assert (text, []) in [(row["text"], row["entities"]) for row in source.examples if row["intent"] == "saludar"]
    assert len(keys(source)) == len(keys(read_source("nlu.yml", old))) + 1


plain = st.text(st.characters(codec="utf-8", exclude_characters="[]"), min_size=1, max_size=20).map(str.strip)
text_like = st.one_of(
    plain,
    plain,
    st.text(st.characters(codec=None), max_size=20),
    st.lists(st.sampled_from([*"[](){}:-#\\u\"'| ,", "entity", "\\u00e1", "ñ", "💩", "\ud800", "\n", "\x85", "\u2028", "hola ", '{"entity": "x"}']), max_size=10).map("".join),
)  # fmt: skip


@st.composite
def examples(draw):
    text = draw(text_like)
    entities = []
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2])) if text else 0):
        start = draw(st.integers(0, len(text) - 1))
        entity = {
            "start": start,
            "end": draw(st.integers(start + 1, len(text))),
            "entity": draw(st.sampled_from(["a", "a b", "ñ:", "x)", '"', "}"])),
        }
        entity |= draw(
            st.fixed_dictionaries(
                {}, optional={"role": st.sampled_from(["r", "}]"]), "group": st.just("1"), "value": text_like}
            )
        )
        entities.append(entity)
    return one(text, draw(st.sampled_from(["saludar", "nuevo", "faq/x"])), entities)


@settings(max_examples=80, deadline=None)
@given(st.lists(examples(), max_size=6), st.sampled_from(sorted(STYLES)))
def test_what_is_merged_reads_back_and_all_else_is_refused_by_name(tmp_path_factory, rows, style):
    folder = folder_of(tmp_path_factory.mktemp("bot"), STYLES[style])
    merge = plan_merge(folder, rows)
    assert len(merge.added) + len(merge.refused) + len(merge.known) == len(rows)
    assert all(row["reason"] for row in merge.refused)
    after = read_source("nlu.yml", merge.files["nlu.yml"][1] if merge.files else STYLES[style])
    held = {(row["intent"], row["text"], len(row["entities"])) for row in after.examples}
    assert {(row["intent"], row["text"], len(row["entities"])) for row in merge.added} <= held
    assert len(after.examples) == len(read_source("nlu.yml", STYLES[style]).examples) + len(merge.added)


def test_new_intents_go_where_the_rule_says_and_several_files_are_kept_apart(tmp_path):
    folder = folder_of(tmp_path, STYLES["block"], "saludos.yml")
    folder_of(tmp_path, "nlu:\n- intent: faq/precio\n  examples: |\n    - cuánto\n", "faq.yml")
    rows = [one("hey"), one("adiós", "despedir"), one("chao", "despedir"), one("dónde", "faq/lugar")]
    merge = plan_merge(folder, rows)
    assert [(row["text"], row["file"]) for row in merge.added] == [
        ("hey", "saludos.yml"),
        ("adiós", "saludos.yml"),
        ("chao", "saludos.yml"),
        ("dónde", "faq.yml"),
    ]
    assert merge.files["saludos.yml"][1].endswith("- intent: despedir\n  examples: |\n    - adiós\n    - chao\n")
    elsewhere = plan_merge(folder, [one("adiós", "despedir")], new_intents="new/mine.yml")
    assert elsewhere.files["new/mine.yml"] == (
        "",
        'version: "3.1"\nnlu:\n- intent: despedir\n  examples: |\n    - adiós\n',
    )
    with pytest.raises(InvalidInput, match="file of the data folder"):
        plan_merge(folder, [one("x")], new_intents="../x.yml")


def test_synthetic_examples_go_into_a_file_of_their_own_that_names_the_run(tmp_path):
    folder = folder_of(tmp_path, STYLES["block"])
    write(plan_merge(folder, [one("muy buenas"), one("-1", "otro")], run="r1"), "ana")
    write(plan_merge(folder, [one("qué onda"), one("hola")], run="r1"), "ana")
    write(plan_merge(folder, [one("hey")], run="r2"), "ana")
    assert (folder / "nlu.yml").read_text() == STYLES["block"]
    ours = (folder / "genesis_synthetic.yml").read_text()
    assert ours.count("metadata: {source: genesis, run: ") == 3
    assert [(row["text"], row["run"]) for row in read_source("g", ours).examples] == [
        ("muy buenas", "r1"),
        ("qué onda", "r1"),
        ("-1", "r1"),
        ("hey", "r2"),
    ]
    assert "hey" not in str(taxonomy_from(folder))


def test_one_file_instead_of_a_folder(tmp_path):
    path = folder_of(tmp_path, STYLES["block"]) / "nlu.yml"
    write(plan_merge(path, [one("muy buenas")]), "ana")
    write(plan_merge(path, [one("qué onda")], run="r1"), "ana")
    write(plan_merge(path, [one("hey")], run="r1"), "ana")
    assert path.read_text() == STYLES["block"] + "    - muy buenas\n"
    assert [row["text"] for row in read_data(path.parent)[0].examples] == ["qué onda", "hey"]


def test_all_files_are_written_or_none(tmp_path):
    folder = folder_of(tmp_path, STYLES["block"])
    merge = plan_merge(folder, [one("muy buenas"), one("x", "nuevo")], new_intents="sub/new.yml")
    (folder / "sub").write_text("a file, where a folder is needed")
    with pytest.raises(GenesisError):
        write(merge, "ana")
    assert (folder / "nlu.yml").read_text() == STYLES["block"]


def test_a_file_that_is_no_text_is_named_and_the_others_are_read(tmp_path):
    folder = folder_of(tmp_path, STYLES["block"])
    (folder / "old.yml").write_bytes("nlu:\n- intent: ñ".encode("latin-1"))
    assert "not UTF-8" in check(folder)[0]["problem"]
    assert len(plan_merge(folder, [one("muy buenas")]).added) == 1


def test_what_is_known_or_stands_elsewhere_is_not_added(tmp_path):
    folder = folder_of(tmp_path, STYLES["indented"])
    merge = plan_merge(folder, [one("hola"), one("x"), one("nueva"), one("nueva"), one("nueva", "otro")])
    assert [row["text"] for row in merge.known] == ["hola", "nueva"]
    assert [row["reason"] for row in merge.refused] == [
        "it stands in nlu.yml:8 as otro",
        "it stands in nlu.yml:new as saludar",
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (one("a\ud800"), "surrogate"),
        (one("hola "), "blank"),
        (one(" \n"), "empty"),
        (one("[x](y)"), "looks like"),
        (one("[x]{y}"), "looks like"),
        (
            one("soy Ana", entities=[{"start": 4, "end": 7, "entity": "a"}, {"start": 5, "end": 6, "entity": "b"}]),
            "overlap",
        ),
        (one("soy [Ana]", entities=[{"start": 4, "end": 9, "entity": "a"}]), "brackets"),
        (one("soy", entities=[{"start": 2, "end": 9, "entity": "a"}]), "outside"),
        (one("soy", entities=[{"start": 0, "end": 2}]), "name"),
        (one("soy", entities="x"), "start, end and entity"),
        (one("soy", "a/b/c"), "one /"),
        (one("soy", ""), "name of an intent"),
    ],
)
def test_refused_by_name(row, reason, tmp_path):
    merge = plan_merge(folder_of(tmp_path, STYLES["block"]), [row])
    assert not merge.files and reason in merge.refused[0]["reason"]


def test_a_version_has_author_hashes_and_a_backup_and_a_changed_file_is_not_overwritten(tmp_path, monkeypatch):
    from genesis_lab.files import use_output_root

    use_output_root(tmp_path / "out")
    try:
        folder = folder_of(tmp_path, STYLES["crlf"])
        merge = plan_merge(folder, [one("muy buenas")])
        assert "+    - muy buenas" in merge.diff() and merge.diff().count("\n+") == 2  # with the line +++
        (version,) = write(merge, "ana")
        assert (version["author"], version["added"]) == ("ana", 1) and versions(folder) == [version]
        (backup,) = (tmp_path / "out" / "nlu").rglob(f"{version['before']}.backup")
        assert backup.read_bytes() == STYLES["crlf"].encode()
        assert (folder / "nlu.yml").read_bytes() == merge.files["nlu.yml"][1].encode()
        with pytest.raises(InvalidInput, match="was changed since"):
            write(merge, "ana")
    finally:
        use_output_root(None)


@pytest.mark.parametrize(
    ("text", "level", "said"),
    [
        ("version: 3.1\nnlu: []\n", "error", "must be a text"),
        ('version: "3.2"\nnlu:\n- intent: a\n  examples: |\n    - x\n', "error", "skips the whole file"),
        ('version: "2.0"\nnlu: []\n', "warning", 'read as "3.1"'),
        ("nlu:\n- intent: a\n  examples:\n  - x\n", "error", "without text"),
        ("nlu:\n- intent: a\n  examples:\n  - text: true\n", "error", "in quotes"),
        ("nlu:\n- intent: a\n  examples:\n  - text: 123\n", "error", "in quotes"),
        ("nlu:\n- intent: a\n  examples:\n  - text: 2024-01-02\n", "error", "in quotes"),
        ("nlu:\n- intent: true\n  examples: |\n    - x\n", "error", "no text"),
        ("nlu:\n- lookup: a\n  examples:\n  - x\n", "error", "begins with |"),
        ("nlu:\n- intent: a\n  examples: |\n    hola\n    - x\n", "warning", "begins with no -"),
        ("nlu:\n- intent: a\n  examples: |\n    # hola\n    - x\n", "warning", "begins with no -"),
        ("nlu:\n- intent: a\n  examples: >\n    - x\n    - y\n", "warning", "folds"),
        ("nlu:\n- intent: a\n  examples: |\n    -\n    - x\n", "warning", "empty example"),
        ("nlu:\n- intent: a\n", "warning", "no examples"),
        ("nlu:\n- intent: a/b/c\n  examples: |\n    - x\n", "error", "more than one /"),
        ("nlu:\n- intent: a/b\n  examples: |\n    - x\nresponses: {}\n", "error", "no response utter_a/b"),
        ("nlu:\n- intent: a\n  examples: |\n    - [x]{y}\n", "error", "not JSON"),
        ("nlu:\n- intent: a\n  examples:\n  - text: vale ${USER}\n", "error", "outside quotes"),
        (
            "nlu:\n- intent: a\n  examples: |\n    - x\n- intent: b\n  examples: |\n    - x\n",
            "error",
            "as a, here as b",
        ),
        (
            "nlu:\n- synonym: a\n  examples: |\n    - x\n- synonym: b\n  examples: |\n    - x\n",
            "error",
            "synonym of 'b'",
        ),
        ("nlu:\n- intnt: a\n", "error", "none of"),
        ("nlu:\n- intent: a\n  exampls: x\n", "error", "exampls"),
        ("nlu: {a: b}\n", "error", "must be a list"),
        ("nlu:\n- intent: a\nnlu: []\n", "error", "twice"),
        ("nlu:\n  - a: [\n", "error", "not YAML"),
        ("- a\n", "error", "mapping"),
        ("nlu: &a [*a]\n", "error", "no mapping"),
        ("nlu: &a\n- *a\n", "error", ""),
        ("nlu:\n- intent: a\n  examples: |\n    -5 grados\n", "warning", "loses its minus"),
        ("intents: [b]\nnlu:\n- intent: a\n  examples: |\n    - x\n", "warning", "not in the domain"),
        ("? [a]\n: b\n? {a: b}\n: c\nnlu: 3\n", "error", "must be a list"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text, level, said, tmp_path):
    found = check(folder_of(tmp_path, text))
    assert [row for row in found if row["level"] == level and said in row["problem"] and row["line"] >= 1], found


@pytest.mark.parametrize("style", STYLES)
def test_good_files_have_no_errors(style, tmp_path):
    found = check(folder_of(tmp_path, STYLES[style]))
    assert not [row for row in found if row["level"] == "error"], found


def test_a_bot_becomes_a_taxonomy_that_the_generator_loads(tmp_path):
    from genesis_lab.domains.conversations.taxonomy import load_taxonomy
    from genesis_lab.yamls import dump_yaml

    folder = folder_of(tmp_path, STYLES["retrieval"])
    folder_of(tmp_path, "language: es\n", "config.yml")
    out = tmp_path / "own.yaml"
    out.write_text(dump_yaml(taxonomy_from(folder)))
    taxonomy = load_taxonomy(out)
    assert taxonomy.category_of == {"faq/precio": "faq", "saludar": "nlu"}
    assert taxonomy.intent("saludar").examples["es"] == ("hola",) and "language es" in taxonomy.source


def test_the_commands(tmp_path):
    from typer.testing import CliRunner

    from genesis_lab.cli import app

    folder = folder_of(tmp_path, STYLES["block"])
    sheet = tmp_path / "new.csv"
    sheet.write_text(
        'intent,text,entities\nsaludar,"soy Ana","[{""start"": 4, ""end"": 7, ""entity"": ""persona""}]"\nsaludar,\'=hola,\n'
    )
    run = lambda *words: CliRunner().invoke(app, ["review", "nlu", *map(str, words)])  # noqa: E731
    assert run("check", folder).exit_code == 0
    shown = run("merge", folder, sheet)
    assert "+    - soy [Ana](persona)" in shown.output and (folder / "nlu.yml").read_text() == STYLES["block"]
    assert "2 added" in run("merge", folder, sheet, "--write").output
    assert (folder / "nlu.yml").read_text() == STYLES["block"] + "    - soy [Ana](persona)\n    - =hola\n"
    assert "needs a file" in str(run("merge", folder, "--remove").exception)
    assert "1 intents" in run("taxonomy", folder, tmp_path / "t.yaml").output
    (folder / "bad.yml").write_text("version: 3.1\nnlu: []\n")
    assert run("check", folder).exit_code == 1
    sheet.write_text("label\nx\n")
    with pytest.raises(InvalidInput, match="lacks intent"):
        read_examples(sheet)


READER = """
import json, sys, warnings, logging
logging.disable(logging.CRITICAL); warnings.simplefilter("ignore")
from rasa.shared.nlu.training_data.loading import load_data
for line in sys.stdin:
    try:
        data = load_data(json.loads(line))
        rows = [[m.get_full_intent(), m.get("text"), m.get("entities", [])] for m in data.training_examples]
        rows += [["synonym", name, text] for text, name in data.entity_synonyms.items()]
        rows += [["regex", one["name"], one["pattern"]] for one in data.regex_features]
        rows += [["lookup", one["name"], text] for one in data.lookup_tables for text in one["elements"]]
        rows += [["response", name, one] for name, some in data.responses.items() for one in some]
    except Exception as error:
        rows = f"{type(error).__name__}: {error}"[:300]
    print(json.dumps(rows), flush=True)
"""


def comparable(rows):
    def span(text, one):
        kept = {key: one[key] for key in ("entity", "role", "group") if one.get(key)}
        return json.dumps(
            {
                **kept,
                "start": one["start"],
                "end": one["end"],
                "value": one.get("value", text[one["start"] : one["end"]]),
            },
            sort_keys=True,
        )

    examples = [row for row in rows if row[0] not in ("synonym", "regex", "lookup", "response")]
    return sorted([intent, text, sorted(span(text, one) for one in entities)] for intent, text, entities in examples)


def comparable_terms(rows):
    return Counter(
        (kind, name, json.dumps(said))
        for kind, name, said in rows
        if kind in ("synonym", "regex", "lookup", "response")
    )


def test_rasas_own_reader_reads_what_was_merged(tmp_path_factory):
    interpreter = os.environ.get("GENESIS_RASA_PYTHON")
    if not interpreter:
        pytest.skip("GENESIS_RASA_PYTHON names no interpreter that has Rasa")
    count, total, refused = int(os.environ.get("GENESIS_RASA_CASES", "60")), 0, 0
    with subprocess.Popen(
        [interpreter, "-c", READER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as rasa:

        def read(path):
            rasa.stdin.write(json.dumps(str(path)) + "\n")
            rasa.stdin.flush()
            return json.loads(rasa.stdout.readline())

        @settings(max_examples=count, deadline=None, database=None)
        @given(st.lists(examples(), min_size=8, max_size=8), st.sampled_from(sorted(STYLES)))
        def same(rows, style):
            nonlocal total, refused
            folder = folder_of(tmp_path_factory.mktemp("bot"), STYLES[style])
            before = read(folder / "nlu.yml")
            assert comparable(before) == comparable(
                (r["intent"], r["text"], r["entities"]) for r in read_data(folder)[0].examples
            )
            merge = plan_merge(folder, rows)
            write(merge, "test")
            after = read(folder / "nlu.yml")
            assert isinstance(after, list), (after, (folder / "nlu.yml").read_text())
            wanted = [*before, *([r["intent"], r["text"], [dict(e) for e in r["entities"]]] for r in merge.added)]
            assert comparable(after) == comparable(wanted)
            total, refused = total + len(rows), refused + len(merge.refused)

        @settings(max_examples=count // 2, deadline=None, database=None)
        @given(st.lists(terms, min_size=8, max_size=8), st.sampled_from(sorted(STYLES)))
        def same_terms(rows, style):
            nonlocal total, refused
            folder = folder_of(tmp_path_factory.mktemp("bot"), STYLES[style])
            before = read(folder / "nlu.yml")
            merge = plan_merge(folder, rows)
            write(merge, "test")
            after = read(folder / "nlu.yml")
            assert isinstance(after, list), (after, (folder / "nlu.yml").read_text())
            told = [
                (r["kind"], r["name"], json.loads(r["text"]) if r["kind"] == "response" else r["text"])
                for r in merge.added
            ]
            said = comparable_terms(before) + comparable_terms(told)
            assert comparable_terms(after) == said, (rows, (folder / "nlu.yml").read_text())
            assert comparable(after) == comparable(before)
            total, refused = total + len(rows), refused + len(merge.refused)

        same()
        same_terms()
        print(f"{total:,} examples, {refused:,} refused by name, none changed")
        rasa.stdin.close()


@pytest.mark.parametrize(
    "name, old", [("nlu.json", '{"rasa_nlu_data": {"common_examples": []}}'), ("nlu.md", "## intent:saludar\n- hola\n")]
)
def test_old_training_data_are_named_in_one_sentence_and_left_out(name, old, tmp_path):
    folder = folder_of(tmp_path, old, name)
    with pytest.raises(InvalidInput, match=r"JSON or Markdown.*rasa data convert nlu"):
        read_data(folder / name)
    (folder / "README.md").write_text("# a bot")
    folder_of(tmp_path, STYLES["block"])
    notes = [row for row in check(folder) if row["level"] == "note"]
    assert [row["file"] for row in notes] == [name] and "rasa data convert nlu" in notes[0]["problem"]
    assert plan_merge(folder, [one("nueva")]).added


MORE = """version: "3.1"
nlu:
- synonym: ahorro
  examples: |
    - ahorritos
- synonym: cheques
  examples: |
    - chequera
- regex: monto
  examples: |
    - \\d+ quetzales
- lookup: persona
  examples: |
    - Lucía
- intent: saludar
  examples: |
    - soy [Eva](cliente)
- intent: faq/horario
  examples: |
    - a qué hora abren
responses:
  utter_faq/horario:
  - text: De 8 a 17.
  utter_hola:
  - text: "Buenas"
    buttons: [{title: Sí, payload: /si}]
"""
DOMAINS = {
    "flow": "intents: [saludar, otro]\nentities: [persona]  # known\nresponses:\n  utter_hola: [{text: hola}]\n  utter_x: [{text: x}]\n",
    "block": "intents:\n- saludar\n- otro: {use_entities: []}\n# who\nentities:\n  - persona:\n      roles: [de]\nresponses:\n    utter_hola:\n    - text: hola\n    # more\n    utter_x:\n    - text: |\n        x\n",
    "no entities": "intents:\n  - saludar\nresponses:\n  utter_hola:\n    - text: hola\nactions: []\n",
    "crlf": "intents: [saludar]\r\nentities:\r\n- persona\r\nresponses:\r\n  utter_hola:\r\n  - text: hola\r\n",
    "no responses": "version: '3.1'\nintents: [saludar]\nentities: []\n",
}  # fmt: skip


def changed(old, new):
    """Lines taken out, and put in."""
    lines = list(difflib.ndiff(old.splitlines(), new.splitlines()))
    return [[line[2:] for line in lines if line.startswith(sign)] for sign in "-+"]


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize("domain", DOMAINS)
def test_all_that_training_data_and_domain_hold_is_merged_line_by_line_and_taken_out_again(domain, beside, tmp_path):
    folder = folder_of(tmp_path, STYLES["lookups after"])
    place = folder.parent / "domain.yml" if beside else folder / "domain.yml"
    place.write_bytes(DOMAINS[domain].encode())
    (tmp_path / "more.yml").write_text(MORE)
    rows = read_examples(tmp_path / "more.yml", terms=True)
    merge = plan_merge(folder, rows)
    assert (len(merge.added), merge.refused) == (len(rows), [])
    out, put = changed(*merge.files["nlu.yml"])
    assert out == [] and len(put) == 4 + 3 + 3  # a line each, and three of what is new
    out, put = changed(*merge.files["../domain.yml" if beside else "domain.yml"])
    assert len(out) <= 3 and all(line.startswith(("intents: [", "entities: [", "  utter_hola: [")) for line in out), out
    assert any("faq" in line for line in put) and any("cliente" in line for line in put)
    write(merge, "ana")
    assert not (found := [row for row in check(folder) if row["level"] == "error"]), found
    assert len(plan_merge(folder, rows).known) == len(rows)
    lines = [row for row in rows if row["kind"] != "response"]
    write(plan_merge(folder, lines, remove=True), "ana")
    assert (folder / "nlu.yml").read_bytes() == STYLES["lookups after"].encode()


@pytest.mark.parametrize("text", ["muy buenas", "soy ñandú 💩", "-5 grados", "línea\notra"])
@pytest.mark.parametrize("style", STYLES)
def test_what_was_added_is_taken_out_byte_by_byte(style, text, tmp_path):
    folder = folder_of(tmp_path, STYLES[style])
    for intent in ("saludar", "nuevo"):
        (folder / "nlu.yml").write_bytes(STYLES[style].encode())
        write(plan_merge(folder, [one(text, intent)]), "ana")
        merge = plan_merge(folder, [one(text, intent)], remove=True)
        write(merge, "ana")
        if "mixed" not in style:  # whose domain keeps the name
            assert (len(merge.removed), (folder / "nlu.yml").read_bytes()) == (1, STYLES[style].encode())


def test_a_label_error_is_mended_by_moving_the_line(tmp_path):
    folder = folder_of(tmp_path, STYLES["comments"], "a.yml")
    folder_of(tmp_path, STYLES["entities"].replace("saludar", "presentarse"), "b.yml")
    rows = [one("x"), one("soy Ana", "presentarse"), one("soy Eva", "otro"), one("nueva"), one("nueva", "otro")]
    assert len(plan_merge(folder, rows).refused) == 4
    merge = plan_merge(folder, rows, move=True)
    assert [row["reason"] for row in merge.refused] == ["it stands in a.yml:new as saludar"]
    assert [row["text"] for row in merge.removed] == ["x", "soy Ana", "soy Eva"]
    assert changed(*merge.files["b.yml"]) == [
        ["    - soy [Ana](persona)", "    - soy [Eva]" + '{"entity": "persona", "role": "de", "value": "Eva M"}'],
        ["    - soy Ana"],
    ]
    assert changed(*merge.files["a.yml"]) == [["    - x"], ["    - x", "    - nueva", "    - soy Eva"]]
    alone = plan_merge(folder_of(tmp_path, STYLES["indented"], "a.yml"), [one("x", "saludar")], move=True)
    assert changed(*alone.files["a.yml"])[0] == ["  - intent: otro", "    examples: |", "      - x"]


@pytest.mark.parametrize("style", ["folded", "quoted", "flow item"])
def test_what_shares_its_line_is_not_taken_out_and_that_is_said(style, tmp_path):
    folder = folder_of(tmp_path, STYLES[style].replace("{text: hola}", "{text: hola}, {text: buenas}"))
    merge = plan_merge(folder, [one("hola"), one("never")], remove=True)
    assert (not merge.files and "alone" in merge.refused[1]["reason"] + merge.refused[0]["reason"]) or style == "folded"
    assert "it is not there" in [row["reason"] for row in merge.refused]


def term(kind, name, text):
    return {"kind": kind, "name": name, "text": text}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (term("regex", "r", "(abc"), "no regular expression"),
        (term("lookup", "l", "a\x07"), "can't be seen"),
        (term("synonym", "s\u2028", "a"), "can't be seen"),
        (term("synonym", "ahorro", " a"), "blank"),
        (term("lookup", "l", ""), "empty"),
        (term("synonym", "otro", "ahorros"), "as ahorro"),
        (term("response", "saludo", '{"text": "x"}'), "utter_"),
        (term("response", "utter_x", '"hola"'), "text:"),
        (one("cuándo", "faq/nuevo"), "needs a response utter_faq/nuevo"),
    ],
)
def test_terms_refused_by_name(row, reason, tmp_path):
    folder = folder_of(tmp_path, STYLES["lookups after"])
    folder_of(tmp_path, DOMAINS["flow"], "domain.yml")
    merge = plan_merge(folder, [row])
    assert not merge.files and reason in merge.refused[0]["reason"]


terms = st.one_of(
    st.builds(term, st.sampled_from(["synonym", "lookup", "regex"]), st.sampled_from(["monto", "ñ x", "a: b", "true"]), text_like),
    st.builds(term, st.just("response"), st.sampled_from(["utter_x", "utter_faq/x"]), text_like.map(lambda text: json.dumps({"text": text}, ensure_ascii=False))),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.lists(terms, max_size=6), st.sampled_from(sorted(STYLES)))
def test_a_term_that_is_merged_reads_back_and_all_else_is_refused_by_name(tmp_path_factory, rows, style):
    folder = folder_of(tmp_path_factory.mktemp("bot"), STYLES[style])
    merge = plan_merge(folder, rows)
    assert len(merge.added) + len(merge.refused) + len(merge.known) == len(rows)
    assert all(row["reason"] for row in merge.refused)
    before = Counter((row["kind"], row["name"], row["text"]) for row in read_source("nlu.yml", STYLES[style]).rows)
    write(merge, "test")
    after = Counter((row["kind"], row["name"], row["text"]) for row in read_data(folder)[0].rows)
    assert after - before == Counter((row["kind"], row["name"], row["text"]) for row in merge.added)
    assert not before - after


def test_a_regex_that_python_cannot_read_is_named_wherever_it_is_used(tmp_path):
    from genesis_lab.review.models import train_classifier

    folder = folder_of(tmp_path, STYLES["lookups after"].replace("\\d+", "(\\d+"))
    (problem,) = [row for row in check(folder) if row["level"] == "error"]
    assert problem["line"] == 10 and "no regular expression (missing )" in problem["problem"]
    with pytest.raises(InvalidInput, match="no regular expression"):
        train_classifier(folder)
    bad = {"kind": "regex", "name": "monto", "text": "(\\d+"}
    assert len(plan_merge(folder, [bad], remove=True).removed) == 1, "and can be taken out"


def test_a_version_is_listed_and_put_back_unless_a_person_changed_the_file(tmp_path, monkeypatch):
    monkeypatch.setenv("GENESIS_OUTPUT_ROOT", str(tmp_path / "out"))
    get_settings.cache_clear()
    folder = folder_of(tmp_path, STYLES["crlf"])
    (tmp_path / "more.csv").write_text("intent,text\nsaludar,hey\nnuevo,chao\n")
    run = lambda *words: CliRunner().invoke(app, ["review", "nlu", *map(str, words)])  # noqa: E731
    run("merge", folder, tmp_path / "more.csv", "--write", "--new-intents", "new.yml")
    listed = run("versions", folder).output.splitlines()
    assert len(listed) == 2 and all("1 added, 0 taken out" in line for line in listed)
    of = {one["file"]: one for one in versions(folder)}
    before = of["nlu.yml"]["before"]
    assert "-    - hey" in run("versions", folder, "nlu.yml", before[:6]).output
    assert b"hey" in (folder / "nlu.yml").read_bytes()
    assert "1 files written" in run("versions", folder, "nlu.yml", before[:6], "--write").output
    assert (folder / "nlu.yml").read_bytes() == STYLES["crlf"].encode()
    run("versions", folder, "new.yml", of["new.yml"]["before"], "--write")
    assert not (folder / "new.yml").exists()
    run("versions", folder, "nlu.yml", of["nlu.yml"]["after"], "--write")
    assert b"hey" in (folder / "nlu.yml").read_bytes() and len(versions(folder)) == 5
    with (folder / "nlu.yml").open("a") as file:
        file.write("# mine\n")
    assert "changed by hand since" in str(run("versions", folder, "nlu.yml", before, "--write").exception)
    assert "# mine" in (folder / "nlu.yml").read_text()
    assert "0 contents" in str(run("versions", folder, "nlu.yml", "nothing").exception)


FIREMAN = "👨🏻‍🚒 💩 soy Ana"
STUDIO = {"start": 11, "end": 14, "text": "Ana", "labels": ["persona"]}


def studio(**span):
    result = [{"type": "choices", "value": {"choices": ["saludar"]}}, {"type": "labels", "value": STUDIO | span}]
    old = {"was_cancelled": True, "result": [{"value": {"choices": ["otro"]}}]}
    return {"data": {"text": FIREMAN}, "annotations": [old, {"result": result}]}


EXPORTS = {
    "Label Studio, code points": studio(),
    "Label Studio, a span of emoji": studio(start=0, end=4, text="👨🏻‍🚒"),
    "doccano, intents and slots": {"text": FIREMAN, "cats": ["saludar"], "entities": [[11, 14, "persona"]]},
    "doccano, spans with relations": {"text": FIREMAN, "label": ["saludar"], "entities": [{"label": "persona", "start_offset": 11, "end_offset": 14}]},
    "doccano, older": {"data": FIREMAN, "label": ["saludar"], "labels": [[11, 14, "persona"]]},
}  # fmt: skip


@pytest.mark.parametrize("name", EXPORTS)
def test_spans_of_label_studio_and_doccano_are_in_code_points(name, tmp_path):
    row, unlabelled = EXPORTS[name], {"text": "x", "label": []}
    if "data" in row and "annotations" in row:
        unlabelled = {"data": {"text": "x"}, "annotations": []}
    (tmp_path / "a.json").write_text(json.dumps([row, unlabelled]))
    (read,) = read_examples(tmp_path / "a.json")
    (span,) = read["entities"]
    assert (read["text"], read["intent"], span["entity"]) == (FIREMAN, "saludar", "persona")
    assert FIREMAN[span["start"] : span["end"]] == ("👨🏻‍🚒" if "emoji" in name else "Ana")
    merge = plan_merge(folder_of(tmp_path, STYLES["block"]), [read])
    assert "](persona)" in merge.diff() and not merge.refused


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (studio(start=12, end=15), "reads 'na' here and 'Ana' there"),
        (studio(start=15, end=18), "and 'Ana' there"),
        (studio(start=1, end=2, text="Ana"), "and 'Ana' there"),
        ({"text": "x", "label": ["a", "b"]}, "has 2 labels"),
        ({"text": "x", "label": [[0, 1, "a"]]}, "lacks intent"),
        ({"text": "x", "label": ["a"], "entities": [[0]]}, "row 1"),
        ({"data": {"text": "x"}, "annotations": [{}]}, "row 1"),
    ],
)
def test_an_export_that_contradicts_itself_is_refused_with_its_row(row, said, tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([row]))
    with pytest.raises(InvalidInput, match=said) as refused:
        read_examples(tmp_path / "a.json")
    assert "row 1" in str(refused.value) and "a.json" in str(refused.value)


def test_a_batch_is_one_commit_on_a_branch_of_the_bots_repository(tmp_path):
    bot = tmp_path / "bot"
    bot.mkdir()
    (bot / "nlu.yml").write_text('version: "3.1"\nnlu:\n- intent: greet\n  examples: |\n    - hola\n')
    (tmp_path / "one.csv").write_text("intent,text\ngreet,buenas\n")
    (tmp_path / "two.csv").write_text("intent,text\ngreet,saludos\n")

    def git(*words):
        who = ("-c", "user.name=eva", "-c", "user.email=eva@example.org")
        return subprocess.run(["git", "-C", bot, *who, *words], check=True, capture_output=True, text=True).stdout

    def merge(*words):
        from genesis_lab.cli import app

        return CliRunner().invoke(
            app, ["review", "nlu", "merge", str(bot), *map(str, words), "--write", "--branch", "labels"]
        )

    none = merge(tmp_path / "one.csv")
    assert none.exit_code == 1 and "buenas" not in (bot / "nlu.yml").read_text(), "no repository: nothing is written"
    git("init", "--quiet", "--initial-branch=main")
    git("config", "user.name", "eva")
    git("config", "user.email", "eva@example.org")
    git("add", ".")
    git("commit", "--quiet", "--message", "a bot")
    assert "on labels" in merge(tmp_path / "one.csv").output
    git("switch", "--quiet", "main")
    assert "on labels" in merge(tmp_path / "two.csv").output
    assert git("log", "--format=%s", "main..labels").count("1 examples by") == 2
    assert git("show", "labels:nlu.yml").splitlines()[-3:] == ["    - hola", "    - buenas", "    - saludos"]
    (bot / "nlu.yml").write_text("nlu: []\n")
    refused = merge(tmp_path / "one.csv")
    assert refused.exit_code == 1 and (bot / "nlu.yml").read_text() == "nlu: []\n"
