"""Looking through records: filters, full text, keys and a person's decisions, as a widget or as one HTML file."""

from __future__ import annotations

import base64
import glob
import gzip
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pyarrow as pa

from genesis_lab.dataset import Dataset, read_reports
from genesis_lab.dataset.curation import decide, labels, standing, texts_of, written_freely
from genesis_lab.domains import get_domain, recorded_domain
from genesis_lab.errors import InvalidInput
from genesis_lab.files import placed
from genesis_lab.reporting.frontend import answering, viewer
from genesis_lab.reporting.html import Html, chat, curve, dialogue, escape, facts, is_curve, table
from genesis_lab.reporting.page import template
from genesis_lab.reporting.reading import offences
from genesis_lab.reporting.style import CSS, OURS, THEIRS, asset

Row = Mapping[str, Any]
PAGE = 50
_SNIPPET = 160
_VALUES = 300
"""Values of a filter that are listed, the most frequent ones."""
_CHUNK = 250
"""Records of an HTML file that are unpacked at once."""
_SHOWN = {
    "value": "coalesce({0}::VARCHAR, '')",
    "list": "coalesce({0}::VARCHAR[], [])",
    "number": "CASE WHEN isfinite({0}::DOUBLE) THEN {0}::DOUBLE END",
    "date": "list_transform(coalesce({0}, []), lambda one: one::VARCHAR)",
}
"""SQL of a column by what it is filtered by."""


class Action(NamedTuple):
    """What a person may do with a record: its key, its name, and what it asks for before."""

    key: str
    name: str
    asks: Literal["", "text", "label", "parts"] = ""  # parts: new words for the record's own texts


ACTIONS = (
    Action("y", "keep"),
    Action("d", "drop"),
    Action("f", "fix", "parts"),
    Action("r", "relabel", "label"),
    Action("n", "note", "text"),
    Action("u", "undo"),
)
"""What `dataset.curation` keeps."""


class Browser:
    """Rows that can be looked through; `ask`, `open` and `act` are what the front end calls.

    Parameters
    ----------
    rows : an Arrow table or a DuckDB relation (over Parquet files: only what is filtered by is held in memory).
    key, text : SQL of what names a row, and of what the list shows of it.
    search, place : SQL of what the full text looks in (default: both) and of a row's place (default: as it comes).
    filters : heading to SQL; numbers and lists of dates are filtered by a range, lists by what they hold.
    preview : HTML of one row, given with all its columns, or pages of it, the one that is shown first; escaped already.
    actions, act : what may be done with a row, and who does it: given row, key, name of the action, what was entered
        and why, it returns how the row is marked then (words with commas), or raises a `GenesisError`, which is shown.
    marks : place of a row to how it is marked already.
    tags : heading to place of a row to names, each with what is said of the row under it: filtered by name.
    parts : the texts of a row that `Action.asks` "parts" offers to be changed, by name.
    labels : what `Action.asks` "label" offers.
    saved, save : name to what was chosen (``where`` by headings, ``words``, ``either``), and who keeps another, or is
        given None to take one away.
    where : heading to the values that are chosen at first (of numbers ``{"from": 3, "to": 9}``, of tags True for any).
    """

    def __init__(
        self,
        rows: Any,
        *,
        key: str,
        text: str,
        preview: Callable[[Row], Html | Sequence[Html]],
        filters: Mapping[str, str] = {},
        search: str = "",
        place: str = "",
        actions: Sequence[tuple[str, str, str]] = (),
        act: Callable[[int, str, str, Any, str], str] | None = None,
        marks: Mapping[int, str] = {},
        tags: Mapping[str, Mapping[int, Mapping[str, str]]] = {},
        parts: Callable[[Row], Mapping[str, str]] = lambda row: {},
        labels: Sequence[str] = (),
        saved: Mapping[str, Any] = {},
        save: Callable[[str, Mapping[str, Any] | None], Any] | None = None,
        where: Mapping[str, Any] | None = None,
        title: str = "",
        unit: str = "records",
    ) -> None:
        import duckdb

        is_relation = isinstance(rows, duckdb.DuckDBPyRelation)
        self._rows: Any = rows if is_relation else duckdb.connect().from_arrow(rows)
        self._placed: Any = self._rows.order(place) if place else self._rows
        self._preview, self._act, self._parts, self.title, self.unit = preview, act, parts, title, unit
        self._key, self._tags = key, tags
        self.actions = tuple(Action(*one) for one in actions)  # type: ignore[arg-type]  # of texts like `Action.asks`
        self._saved, self._save, self.labels = dict(saved), save, list(labels)
        self._names = {f"f{i}": heading for i, heading in enumerate(filters)}
        looked = f"coalesce(({search or text})::VARCHAR, '') || ' ' || coalesce(({key})::VARCHAR, '')"
        columns = [
            f"({place or 'row_number() OVER () - 1'})::INTEGER AS row",
            f"({key})::VARCHAR AS key",
            f"left(replace(coalesce(({text})::VARCHAR, ''), chr(10), ' '), {_SNIPPET}) AS text",
            f"strip_accents(lower(replace({looked}, chr(10), ' '))) AS folded",
            *(f"({sql}) AS f{i}" for i, sql in enumerate(filters.values())),
        ]
        try:
            found: Any = self._rows.query("rows", f"SELECT {', '.join(columns)} FROM rows")
            index: pa.Table = found.to_arrow_table()
        except duckdb.Error as error:
            raise InvalidInput(f"These rows can't be looked through: {' '.join(str(error).split())}") from None
        self._kinds = {name: _kind(index.schema.field(name).type) for name in self._names}
        shown, joins = [f"{_SHOWN[kind].format(name)} AS {name}" for name, kind in self._kinds.items()], ""
        lists: dict[str, tuple[str, Mapping[int, Iterable[str]]]]
        lists = {f"t{i}": (heading, said) for i, (heading, said) in enumerate(tags.items())}
        if actions:
            lists["mark"] = "mark", {row: words.split(", ") for row, words in marks.items()}
        self._db: Any = duckdb.connect()
        for name, (heading, said) in lists.items():
            held = pa.array([list(one) for one in said.values()], pa.list_(pa.string()))
            self._db.register(f"of_{name}", pa.table({"row": pa.array(said, pa.int32()), name: held}))
            shown.append(f"coalesce({name}, {[''] if name == 'mark' else []}) AS {name}")
            joins += f" LEFT JOIN of_{name} USING (row)"
            self._names[name], self._kinds[name] = heading, "list"
        self._db.register("given", index)
        shown = ["row", "key", "text", "folded", *shown]
        self._db.execute(f"CREATE TABLE shown AS SELECT {', '.join(shown)} FROM given{joins}")
        self.total, self.where = int(index.num_rows), self._chosen(where or {})

    def about(self) -> dict[str, Any]:
        """What the front end has to know before it asks for anything."""
        filters = [{"name": name, "title": heading, "kind": self._kinds[name]} for name, heading in self._names.items()]
        plain = {"title": self.title, "unit": self.unit, "total": self.total, "labels": self.labels, "page": PAGE}
        plain |= {"actions": [one._asdict() for one in self.actions], "saved": self._saved if self._save else None}
        return plain | {"filters": filters, "where": self.where}

    def ask(
        self,
        where: Mapping[str, Any] | None = None,
        words: str = "",
        offset: int = 0,
        limit: int = PAGE,
        either: bool = False,
    ) -> dict[str, Any]:
        """The rows of one page, how many there are, and of each filter the counts of its values in what others leave.

        `either`: one filter that holds is enough.
        """
        conditions = {name: self._condition(name, chosen) for name, chosen in (where or {}).items() if chosen}
        columns = ", ".join(["row", "key", "text", *self._names])
        source = "shown"
        if looked := _wanted(words):
            source, holds = "found", " AND ".join(["contains(folded, strip_accents(lower(?)))"] * len(looked))
            self._db.execute(f"CREATE OR REPLACE TEMP TABLE found AS SELECT {columns} FROM shown WHERE {holds}", looked)

        def chosen(but: str = "") -> tuple[str, list[Any]]:
            kept = [condition for name, condition in conditions.items() if name != but]
            joined = (" OR " if either else " AND ").join(f"({sql})" for sql, _ in kept)
            return joined or "true", [value for _, values in kept for value in values]

        kept, (sql, values) = source, chosen()
        if conditions:  # of which all but the filters that are chosen are counted
            kept = "kept"
            self._db.execute(f"CREATE OR REPLACE TEMP TABLE kept AS SELECT {columns} FROM {source} WHERE {sql}", values)
        total = self._db.execute(f"SELECT count(*) FROM {kept}").fetchall()[0][0]
        page = f"SELECT {columns} FROM {kept} ORDER BY row LIMIT {int(limit)} OFFSET {int(offset)}"
        rows = self._db.sql(page).to_arrow_table().to_pylist()
        looked_at = {name: (source, *chosen(name)) if name in conditions else (kept,) for name in self._names}
        counts = {name: self._counted(name, *where) for name, where in looked_at.items()}
        return {"total": total, "offset": offset, "rows": rows, "counts": counts}

    def open(self, row: int, page: int = 0) -> dict[str, Any]:
        """A row's preview (a `page` of it, and whether there are more), its tags, its texts that may be changed."""
        shown = self._opened(row, self.record(row))
        return {**shown, "row": row, "html": shown["html"][page], "more": page + 1 < len(shown["html"])}

    def save(self, name: str, chosen: Mapping[str, Any] | None) -> dict[str, Any]:
        """Keep what is chosen under a name; None takes the name away."""
        if self._save is None or not name.strip():
            raise InvalidInput("A filter is kept under a name.")
        self._save(name, chosen)
        self._saved = {**self._saved, name: chosen}
        return {name: kept for name, kept in self._saved.items() if kept is not None}

    def act(self, row: int, name: str, value: Any = None, why: str = "") -> dict[str, Any]:
        """Carry out an action; how the row is marked then, or why it can't be."""
        if self._act is None or name not in [one.name for one in self.actions]:
            raise InvalidInput(f"Nothing is done under the name {name!r} here.")
        mark = self._act(row, self._at(row), name, value, why)
        self._db.execute("UPDATE shown SET mark = string_split(?, ', ') WHERE row = ?", [mark, row])
        return {"row": row, "mark": mark}

    def record(self, row: int) -> dict[str, Any]:
        """A row with all its columns."""
        key = self._at(row)
        alike = self._db.execute("SELECT row FROM shown WHERE key = ? LIMIT 2", [key]).fetchall()
        quoted = key.replace("'", "''")
        found = self._placed.limit(1, row)
        if len(alike) == 1:
            found = self._rows.filter(f"({self._key})::VARCHAR = '{quoted}'")
        return dict(found.to_arrow_table().to_pylist()[0])

    def few(self, limit: int = 5) -> Html:
        """The first rows with their text, where nobody can look through them; what is the same for all is left out."""
        found, rows = self.ask(self.where, limit=limit), list[Row]()
        varied = [name for name in self._names if name != "mark" and len(self.where.get(name) or "..") > 1]
        first = sorted(varied, key=lambda name: (name not in self.where, self._names[name] not in self._tags))[:4]
        for row in found["rows"]:
            said = {self._names[name]: row[name] for name in first}
            tags = {heading: self._tags[heading].get(row["row"], {}) for heading in said if heading in self._tags}
            key = {} if self._key.startswith('"_') else {"record": row["key"]}  # such a column is nobody's to read
            rows.append({**key, "text": row["text"], **said, **tags})
        of = f"{self.title}: {found['total']:,} of {self.total:,} {self.unit}".removeprefix(": ")
        return table(rows, caption=f"{of}, the first {len(rows)}") if rows else Html(f"<p>{escape(of)}</p>")

    def shown(self) -> Any:
        """The widget where a person sits before a notebook; else the first rows with their texts."""
        return self.widget() if viewer() == "notebook" else self.few()

    def widget(self) -> Any:
        """The widget that shows it in a notebook."""
        does: dict[str, Callable[..., Any]] = {"ask": self.ask, "open": self.open, "act": self.act, "save": self.save}
        return answering("browser", self.about(), does)

    def write(self, path: Path, *, replace: bool = False) -> Path:
        """All of it as one HTML file that needs nothing else; what is decided there is downloaded as JSON lines."""
        from markupsafe import Markup

        about = json.dumps(self.about() | {"chunk": _CHUNK}, ensure_ascii=False).replace("<", "\\u003c")
        ours = {"about": about, "css": CSS + asset("browser.css"), "js": asset("browser.js")}
        page = template("browser.html.j2").generate(
            title=self.title or self.unit, packed=self._packed(), **{name: Markup(text) for name, text in ours.items()}
        )
        with placed(path, replace=replace) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.writelines(page)
        return path

    def _packed(self) -> Iterator[tuple[str, str]]:
        """What an HTML file holds, by name: what is listed and filtered by, the words, and the records in chunks."""
        columns = self._db.sql(f"SELECT key, text, {', '.join([*self._names, 'folded'])} FROM shown ORDER BY row")
        index = columns.to_arrow_table()
        listed: dict[str, Any] = {name: index[name].to_pylist() for name in ("key", "text", *self._names)}
        for name in (name for name in self._names if self._kinds[name] == "value"):
            codes = index[name].combine_chunks().dictionary_encode()
            listed[name] = {"values": codes.dictionary.to_pylist(), "codes": codes.indices.to_pylist()}
        yield "index", _zipped(json.dumps(listed, ensure_ascii=False))
        yield "folded", _zipped("\n".join(index["folded"].to_pylist()))
        batches = pa.RecordBatchReader.from_stream(self._placed)
        few = (batch.slice(at, _CHUNK) for batch in batches for at in range(0, len(batch), _CHUNK))
        records = enumerate(record for batch in few for record in batch.to_pylist())
        for number in range(-(-self.total // _CHUNK)):
            chunk = [self._opened(row, record) for row, record in islice(records, _CHUNK)]
            yield f"chunk{number}", _zipped(json.dumps(chunk, ensure_ascii=False))

    def _opened(self, row: int, record: Row) -> dict[str, Any]:
        tags = [[name, why] for said in self._tags.values() for name, why in said.get(row, {}).items()]
        shown = self._preview(record)
        pages = [one.html for one in ([shown] if isinstance(shown, Html) else shown)]
        return {"html": pages, "tags": tags, "parts": dict(self._parts(record))}

    def _at(self, row: int) -> str:
        found = self._db.execute("SELECT key FROM shown WHERE row = ?", [row]).fetchall()
        if not found:
            raise InvalidInput(f"There is no row {row}: there are {self.total:,}.")
        return str(found[0][0] or "")

    def _chosen(self, where: Mapping[str, Any]) -> dict[str, Any]:
        """What is chosen by headings, by the front end's names; one value will do as well as a list."""
        names = {heading: name for name, heading in self._names.items()}
        if unknown := [heading for heading in where if heading not in names]:
            raise InvalidInput(f"Nothing is filtered by {unknown[0]!r} here: there is {', '.join(names)}.")
        chosen: dict[str, Any] = {}
        for heading, value in where.items():
            if value is True:
                value = sorted({name for one in self._tags.get(heading, {}).values() for name in one}) or [""]
            several = value if isinstance(value, list | tuple | set) else [value]
            chosen[names[heading]] = value if isinstance(value, Mapping) else [str(one) for one in several]
        return chosen

    def _condition(self, name: str, chosen: Any) -> tuple[str, list[Any]]:
        if name not in self._kinds:
            raise InvalidInput(f"Nothing is filtered by {name!r} here.")
        kind = self._kinds[name]
        if isinstance(chosen, Mapping) != (kind in ("number", "date")):
            wanted = "a range" if kind in ("number", "date") else "values"
            raise InvalidInput(f"{self._names[name]} is filtered by {wanted}, got {chosen}.")
        if kind == "date":
            days = [str(chosen.get("from") or ""), str(chosen.get("to") or "9999")]
            return f"len(list_filter({name}, lambda one: one BETWEEN ? AND ?)) > 0", days
        if isinstance(chosen, Mapping):
            signs = {">=": chosen.get("from"), "<=": chosen.get("to")}
            try:
                given = {sign: float(end) for sign, end in signs.items() if end not in (None, "")}
            except (TypeError, ValueError):
                raise InvalidInput(f"{self._names[name]} is filtered by numbers, got {dict(chosen)}.") from None
            return " AND ".join(["true", *(f"{name} {sign} ?" for sign in given)]), [*given.values()]
        values = [str(one) for one in chosen]
        return (f"list_has_any({name}, ?)" if kind == "list" else f"list_contains(?, {name})"), [values]

    def _counted(self, name: str, source: str, sql: str = "true", values: Sequence[Any] = ()) -> Any:
        kind = self._kinds[name]
        if kind in ("number", "date"):
            low, high = (f"{end}(list_{end}({name}))" if kind == "date" else f"{end}({name})" for end in ("min", "max"))
            low, high = self._db.execute(f"SELECT {low}, {high} FROM {source} WHERE {sql}", values).fetchall()[0]
            return {"low": low, "high": high}
        each = f"unnest({name})" if kind == "list" else name
        found = self._db.execute(
            f"SELECT value, count(*) AS n FROM (SELECT {each} AS value FROM {source} WHERE {sql}) GROUP BY value "
            f"ORDER BY n DESC, value LIMIT {_VALUES}",
            values,
        )
        return found.fetchall()


def _kind(of: pa.DataType) -> str:
    if pa.types.is_list(of) or pa.types.is_large_list(of):
        return "date" if pa.types.is_date(of.value_type) else "list"
    return "number" if pa.types.is_integer(of) or pa.types.is_floating(of) or pa.types.is_decimal(of) else "value"


def _wanted(words: str) -> list[str]:
    """What must occur: words, and what stands in quotes as a whole."""
    quoted = words.split('"')
    return [*(part for part in quoted[1::2] if part.strip()), *(word for part in quoted[::2] for word in part.split())]


def _zipped(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode("utf-8", "replace"), 6, mtime=0)).decode()


def browse(
    dataset: Dataset,
    where: Mapping[str, Any] | None = None,
    *,
    title: str = "",
    reports: Mapping[str, Any] | None = None,
) -> Any:
    """A dataset's records that `where` is true of: the browser where a person sits, else the first ones' texts."""
    return browser_of(dataset, where, title=title, reports=reports).shown()


def answered(rows: Sequence[Row], where: Mapping[str, Any] | None = None, *, title: str = "") -> Any:
    """What a classifier made of texts (``text``, ``label``, ``understood as``, whatever else), to be looked through."""
    right = ["yes" if row["label"] == row["understood as"] else "no" for row in rows]
    held = pa.Table.from_pylist([*rows]).append_column("right", pa.array(right, pa.string()))
    filters = {name: f'"{name}"' for name in ["right", *held.column_names] if name != "text"}

    def preview(row: Row) -> Html:
        return Html(f'<section class="chat"><p dir="auto">{escape(row["text"])}</p></section>{facts(row).html}')

    return Browser(
        held, key="NULL", text="text", filters=filters, preview=preview, where=where, title=title, unit="texts"
    ).shown()


def browser_of(
    dataset: Dataset,
    where: Mapping[str, Any] | None = None,
    *,
    title: str = "",
    reports: Mapping[str, Any] | None = None,
) -> Browser:
    """A dataset's records, filtered by attributes, teacher, words and what its reports say is wrong with them.

    What a person decides (`ACTIONS`) is kept beside the data, see `dataset.curation`. `reports` (default: those kept
    with the dataset) name the offenders; pairs that should be filled are a filter each, ``intent × language``.
    """
    import duckdb

    facets, schema = get_domain(dataset.domain).facets, dataset.schema
    connection = duckdb.connect()
    selects = []
    for i, split in enumerate(dataset.counts):
        connection.read_parquet([glob.escape(str(part)) for part in dataset.parts(split)]).create_view(f"part_{i}")
        selects.append(f"SELECT *, '{split}' AS split FROM part_{i}")
    texts = {field.name for field in schema if pa.types.is_string(field.type)}
    own = ", ".join(f'"{name}"' for name in written_freely(dataset.domain) if name in texts) or "NULL"
    everything = f"array_to_string({facets.texts}, ' ')" if facets.texts else facets.text or f"concat_ws(' · ', {own})"
    named = [facets.label, facets.language, *facets.attributes]
    filters = {name: f'"{name}"' for name in dict.fromkeys(named) if name and name in schema.names}
    for a, b in facets.covered:
        filters[f"{a} × {b}"] = f'concat_ws(\' × \', "{a}", "{b}")'
    filters |= {"teacher": "provenance.model"} if "provenance" in schema.names else {}
    plain = f"trim(replace(replace({everything}, chr(10), ' '), '  ', ' '))"
    words = f"length({plain}) - length(replace({plain}, ' ', '')) + 1"
    filters["words"] = f"CASE WHEN {plain} <> '' THEN {words} ELSE 0 END"
    filters |= {"split": "split"} if len(dataset.counts) > 1 else {}
    failed, alike = offences(read_reports(dataset) if reports is None else reports)

    def act(row: int, key: str, name: str, value: Any, why: str) -> str:
        return str(decide(dataset, row, name, value, why=why).get("marks", ""))

    return Browser(
        connection.sql(" UNION ALL ".join(selects)),
        key=f'"{facets.id}"',
        text=facets.text or everything,
        search=everything,
        preview=preview_of(dataset),
        filters=filters,
        actions=ACTIONS if facets.label else [one for one in ACTIONS if one.asks != "label"],
        act=act,
        marks={row: one["marks"] for row, one in standing(dataset).items()},
        tags={"check failed": failed, "alike": alike},
        parts=lambda row: texts_of(dataset, row),
        labels=labels(dataset),
        where=where,
        title=title or dataset.name,
        unit=dataset.unit,
    )


def conversation(turns: Sequence[Row], *, here: str = "", page: int = 50) -> list[Html]:
    """A conversation with a bot in pages of `page` turns, its end first, the turn with the key `here` marked.

    `turns` : texts with their entities, intents and confidences, actions and slots; see `review.conversations.turns`.
    """
    shown, ends = template("conversation.html.j2"), range(len(turns), 0, -page) or [0]
    parts = [turns[max(0, end - page) : end] for end in ends]
    return [Html(shown.render(turns=part, here=here, ours=OURS, theirs=THEIRS)) for part in parts]


def preview_of(dataset: Dataset, *, fields: bool = True) -> Callable[[Row], Html]:
    """How one record of a dataset is shown, by its domain's `facets.preview`, all `fields` folded below."""
    domain: Any = recorded_domain(dataset.manifest) or get_domain(dataset.domain)
    facets = domain.facets

    def draw(record: Row) -> str:
        if facets.preview == "chat":
            return chat([record], facets).html
        if facets.preview == "dialogue":
            example = domain.example(record)
            return dialogue([(example.question, example.answer)]).html
        curves = (curve(one).html for one in record.values() if is_curve(one))
        return next(curves, "") + facts({n: record.get(n) for n in facets.attributes}).html

    def preview(record: Row) -> Html:
        if not fields:
            return Html(draw(record))
        every = {**record, **(record.get("provenance") or {})}.items()
        plain = {name: value for name, value in every if not isinstance(value, list | dict)}
        return Html(f"{draw(record)}<details><summary>all fields</summary>{facts(plain).html}</details>")

    return preview
