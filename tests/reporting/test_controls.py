"""A form gives back a validated config; where nobody watches it gives back the one it got."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, field_validator

from chromium import opened
from genesis_lab.errors import InvalidInput
from genesis_lab.generation import config_for, generate
from genesis_lab.notebooks import find_notebook, read_notebook
from genesis_lab.parameters import declared
from genesis_lab.reporting import controls
from genesis_lab.settings import get_settings
from genesis_lab.yamls import shipped

SHARES = {"a": 0.3, "b": 0.5, "c": 0.2}
DOMAINS = ("conversations", "timeseries", "requirements", "vision")
INTENTS = ["request_refund", "refund_late", "card_arrival"]


class Config(BaseModel):
    total: int = Field(100, ge=10, le=1_000_000, description="how many")
    share: float = Field(0.5, ge=0, le=1)
    turns: int = Field(4, ge=2, le=12)
    tone: Literal["warm", "cool"] = "warm"
    shares: dict[str, Annotated[float, Field(ge=0, le=1)]] = SHARES
    intents: tuple[str, ...] = ()
    path: str | None = None

    @field_validator("shares")
    @classmethod
    def _adds_up(cls, shares: dict[str, float]) -> dict[str, float]:
        if abs(sum(shares.values()) - 1) > 1e-6:
            raise ValueError("shares must add up to 1")
        return shares

    @field_validator("turns")
    @classmethod
    def _even(cls, turns: int) -> int:
        if turns % 2:
            raise ValueError("must be even")
        return turns


def shown(config: Config) -> controls.Form[Config]:
    return controls.Form(config, choices={"intents": INTENTS}, preview=lambda c: {"records": c.total})


def panel(form: controls.Form[Any]) -> str:
    return str(form.tell()["told"])


def kinds(form: controls.Form[Any], *names: str) -> list[str]:
    return [form.fields[name]["kind"] for name in names]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody sits before the notebook, whose session has just begun."""
    monkeypatch.setattr(controls, "viewer", lambda: "notebook")
    monkeypatch.setattr(controls, "display", lambda widget: None)
    monkeypatch.setattr(controls, "_LIVE", {})


def test_headless_a_form_is_the_config_it_got() -> None:
    config = Config(shares={"a": 0.333, "b": 0.333, "c": 0.334})
    form = controls.form(config, choices={"intents": INTENTS})
    assert form.value is config
    assert form.widget is None


def test_an_untouched_form_changes_nothing() -> None:
    config = Config(shares={"a": 0.333, "b": 0.333, "c": 0.334})
    assert shown(config).value is config


def test_what_is_chosen_comes_back_validated() -> None:
    form = shown(Config())
    form.enter("tone", "cool")
    form.enter("share", 25)
    form.enter("path", " data.csv ")
    assert form.value == Config(tone="cool", share=0.25, path="data.csv")


def test_kinds_of_fields_get_fitting_widgets() -> None:
    form = shown(Config())
    names = ("total", "share", "turns", "tone", "path", "shares", "intents")
    assert kinds(form, *names) == ["number", "number", "number", "choice", "text", "shares", "several"]
    ends = [(form.fields[name].get("min"), form.fields[name].get("max")) for name in ("total", "share", "turns")]
    assert ends == [(None, None), (0, 100), (2, 12)], "a slider where it can hit every value"


def test_an_invalid_choice_is_one_sentence() -> None:
    form = shown(Config())
    form.enter("turns", 5)
    with pytest.raises(InvalidInput, match=r"^turns: must be even\.$"):
        _ = form.value
    assert "turns: must be even" in panel(form)


def test_the_preview_follows_the_form() -> None:
    form = shown(Config())
    form.enter("total", 5000)
    assert "5,000" in panel(form)


@pytest.mark.parametrize("error", [InvalidInput("tone: no price is known for cool."), KeyError("cool")])
def test_a_preview_that_fails_says_why_and_leaves_no_old_numbers(error: Exception) -> None:
    def preview(config: Config) -> dict[str, object]:
        if config.tone == "cool":
            raise error
        return {"records": config.total}

    form = controls.Form(Config(), preview=preview)
    assert "100" in panel(form)
    told = form.enter("tone", "cool")["told"]
    assert "cool" in told and 'role="alert"' in told and "100" not in told
    told = form.enter("tone", "warm")["told"]
    assert "100" in told and "alert" not in told


@pytest.mark.parametrize(("name", "value"), [("total", 5), ("turns", 14), ("share", 130), ("turns", "many")])
def test_a_value_out_of_range_is_said_and_not_changed(name: str, value: object) -> None:
    form = shown(Config())
    state = form.enter(name, value)
    assert state["entered"] == {name: value} and state["fault"] == name, "it is marked where it is"
    assert f"{name} must be a" in state["told"]
    with pytest.raises(InvalidInput, match=rf"^{name} must be a"):
        _ = form.value


def test_the_form_in_a_browser(watched: None, tmp_path: Path) -> None:
    form = controls.form(
        Config(path="</script>"),
        choices={"intents": INTENTS},
        basics=("total", "turns", "shares", "intents", "tone"),
        preview=lambda c: {"<records>": c.total},
        button="Generate",
    )
    model = f"""const heard = {{}}, model = {{
        about: {json.dumps(form.widget.about).replace("<", chr(92) + "u003c")},
        get: () => model.about, on: (event, does) => {{ heard[event] = does; }}, off: () => 0,
        send: (given) => {{ window.sent = given.with; window.asked = given; }},
    }};
    window.tell = (state) => {{ model.about = {{ ...model.about, state }}; heard["change:about"](); }};
    window.answer = () => heard["msg:custom"]({{ number: asked.number, answer: null }});
    form.render({{ model, el: document.body }});"""
    page = tmp_path / "form.html"
    kind = form.widget
    page.write_text(f"<!doctype html><style>{kind._css}</style><body><script type=module>{kind._esm}{model}</script>")
    turns = "document.querySelectorAll('[data-field=turns] input')"
    tell = "events.forEach((event) => one.dispatchEvent(new Event(event)))"
    put = f"((one, value, ...events) => {{ one.value = value; {tell}; }})"
    panel = "document.querySelector('.glf-side section').textContent"
    with opened(page, tmp_path / "profile") as tab:
        tab.until(f"{turns}.length", 2)
        assert "<records>" in tab.js(panel) and tab.js("document.querySelectorAll('details .glf-row').length") == 2
        tab.js(f"{put}({turns}[0], 6, 'input', 'change')")
        assert tab.js(f"[{turns}[1].value, window.sent]") == ["6", {"name": "turns", "value": 6}]
        tab.js(f"{put}({turns}[1], 8, 'change')")
        assert tab.js(f"[{turns}[0].value, window.sent.value]") == ["8", 8] and "calculating" in tab.js(panel)
        tab.js("answer()")
        tab.until(f"{panel}.includes('100')", True)  # also where nothing has changed by it
        tab.js(f"{put}({turns}[1], 14, 'change')")
        tab.js(f"tell({json.dumps(form.enter('turns', tab.js('window.sent.value')))})")
        assert tab.js(f"{turns}[1].value") == "14", "what is out of range is said and not changed"
        assert "must be at most 12" in tab.js(panel) and tab.js("document.querySelector('button.mod-primary').disabled")
        told = "[...document.querySelectorAll('.glf-row > .glf-alert')].filter((one) => one.textContent)"
        assert tab.js(f"{told}.map((one) => one.parentNode.dataset.field)") == ["turns"]
        tab.js(f"{put}(document.querySelector('[data-field=shares] input[type=range]'), 80, 'input', 'change')")
        assert tab.js("window.sent") == {"name": "shares", "value": {"a": 80, "b": 50, "c": 20}}
        assert (
            tab.js("document.querySelector('[data-field=shares] small.glf-quiet').textContent")
            == "so: a 53%, b 33%, c 13%"
        )
        tab.js("document.querySelector('[data-field=intents] option:nth-child(2)').selected = true")
        tab.js("document.querySelector('[data-field=intents] select').dispatchEvent(new Event('change'))")
        assert tab.js("window.sent.value") == [INTENTS[1]]
        tab.js("[...document.querySelectorAll('button')].find((one) => one.textContent.startsWith('reset')).click()")
        assert tab.js("window.sent.name") is None


def test_what_was_chosen_stays_when_the_cell_runs_again(watched: None) -> None:
    first = controls.form(Config(), choices={"intents": INTENTS})
    for name, value in (
        ("total", 1540),
        ("tone", "cool"),
        ("intents", ["card_arrival"]),
        ("shares", {"a": 80, "b": 50, "c": 20}),
    ):
        first.enter(name, value)
    again = controls.form(Config(), choices={"intents": INTENTS})
    assert again is not first and again.value == first.value
    assert again.widget.about["state"]["changed"] == ["total", "tone", "shares", "intents"]
    again.enter("tone", "warm")
    assert again.widget.about["state"]["changed"] == ["total", "shares", "intents"], "there and back is no change"
    fewer = controls.form(Config(), choices={"intents": INTENTS[:2]})
    assert fewer.value.intents == (), "a name that is no longer among those there are"


def test_a_parameter_that_was_changed_since_wins_over_the_form(watched: None) -> None:
    form = controls.form(Config())
    form.enter("total", 1540)
    form.enter("turns", 8)
    assert controls.form(Config(total=5000)).value == Config(total=5000, turns=8)


def test_a_form_goes_back_to_the_parameters(watched: None) -> None:
    form = controls.form(Config(tone="cool"))
    form.enter("total", 1540)
    form.widget.does["enter"](None, None)
    assert form.value == Config(tone="cool") and form.widget.about["state"]["changed"] == []
    assert controls.form(Config(tone="cool")).value == Config(tone="cool")


def test_what_can_t_be_stays_too_and_is_said_where_it_is_used(watched: None) -> None:
    controls.form(Config()).enter("turns", 5)
    again = controls.form(Config())
    assert "turns: must be even" in panel(again)
    with pytest.raises(InvalidInput, match="must be even"):
        _ = again.value


def test_the_basics_are_shown_and_the_others_folded(watched: None) -> None:
    about = controls.form(Config(), hide={"path"}, basics=["tone", "total"]).widget.about
    assert about["basics"] == ["tone", "total"] and about["says"]["more"] == "4 more settings"
    assert {field["name"] for field in about["fields"]} == {*Config.model_fields} - {"path"}


def test_several_teachers_and_addresses_are_written_one_a_line() -> None:
    config = config_for("conversations")()
    form = controls.Form(config)
    form.enter("base_urls", "http://localhost:11434/v1\n\n http://localhost:8000/v1 ")
    form.enter("teachers", "ollama:llama3.1:8b = 3\noffline")
    assert form.value.base_urls == ("http://localhost:11434/v1", "http://localhost:8000/v1")
    assert form.value.teachers == {"ollama:llama3.1:8b": 0.75, "offline": 0.25}
    form.enter("teachers", "ollama:llama3.1:8b = lots")
    assert "must be a number" in panel(form)


def test_a_choice_says_what_is_to_be_known_of_it() -> None:
    told = {"path": {"a": "770 conversations", "b": ""}, "tone": {"warm": "ready", "cool": "cold"}}
    form = controls.Form(Config(path="b"), choices=told)
    assert ("a · 770 conversations", "a") in form.fields["path"]["options"]
    assert form.fields["tone"]["options"] == [("warm · ready", "warm"), ("cool · cold", "cool")]
    form.enter("path", "a")
    assert form.value.path == "a"


def test_where_the_name_is_taken_the_form_offers_a_free_one_and_to_replace(own_output_root: Path) -> None:
    made = config_for()(dataset="bank", total=10, intents=("card_arrival",))
    generate(made)
    other = config_for()(**made.model_dump() | {"total": 12})

    def ways_out(press: str = "") -> list[str]:
        for label, name, value in form.tell()["ways"]:
            if label == press:
                form.enter(name, value)
        return [label for label, *_ in form.tell()["ways"]]

    def begin() -> controls.Form:
        return controls.Form(other, hide={"cells"}, preview=lambda c: c.check_room() or {"records": c.total})

    form = begin()
    assert "already holds a dataset made with other settings" in panel(form)
    assert ways_out() == ["Name it bank_2", "Replace it"]
    assert ways_out("Name it bank_2") == []
    assert form.value.dataset == "bank_2" and "12" in panel(form)
    generate(form.value)
    form = begin()
    assert "Name it bank_3" in ways_out()
    assert ways_out("Replace it") == [] and (form.value.dataset, form.value.replace) == ("bank", True)
    form.enter("replace", False)
    form.enter("dataset", "bank_2")
    assert ways_out() == [], "of these very settings it is not taken"


def test_names_are_a_dropdown_even_where_there_are_none_yet() -> None:
    form = controls.Form(Config(path="b"), choices={"path": dict[str, str]()})
    assert form.fields["path"]["options"] == [("–", None), ("b", "b")] and form.value.path == "b"


def test_parameters_of_a_notebook_are_chosen_and_its_variables_follow(watched: None) -> None:
    source = "dataset: str = 'a'  # which one\nlimit: int | None = None  # most records\nseed: int = 0"
    namespace = {"In": ["", source, "choose()"], "dataset": "a", "limit": None, "seed": 3}
    controls.choose(namespace, "dataset", "limit", choices={"dataset": lambda: ["a", "b"]})
    form = next(iter(controls._LIVE.values()))
    form.enter("dataset", "b")
    form.enter("limit", "20")
    assert (namespace["dataset"], namespace["limit"], namespace["seed"]) == ("b", 20, 3)
    namespace |= {"dataset": "a", "limit": None}  # the cell of parameters is run again
    controls.choose(namespace, "dataset", "limit", choices={"dataset": lambda: ["a", "b"]})
    assert (namespace["dataset"], namespace["limit"]) == ("b", 20)
    next(iter(controls._LIVE.values())).enter("limit", "many")
    with pytest.raises(InvalidInput, match=r"^limit must be a whole number"):
        controls.choose(namespace, "dataset", "limit", choices={"dataset": lambda: ["a", "b"]})


def test_headless_parameters_stay_as_they_are() -> None:
    namespace = {"dataset": "a"}
    controls.choose(namespace, "dataset", choices={"dataset": lambda: 1 / 0})
    assert namespace == {"dataset": "a"}


def test_shares_are_read_in_proportion_so_they_always_add_up() -> None:
    form = shown(Config())
    for shares in ((80, 50, 20), (80, 100, 20), (80, 100, 33), (0, 100, 33)):
        form.enter("shares", dict(zip("abc", shares, strict=True)))
        assert sum(form.value.shares.values()) == pytest.approx(1)
    assert form.value.shares == pytest.approx({"a": 0, "b": 100 / 133, "c": 33 / 133})
    form.enter("shares", dict.fromkeys("abc", 0))
    with pytest.raises(InvalidInput, match="add up to 1"):
        _ = form.value


def test_a_slider_moved_there_and_back_changes_nothing() -> None:
    config = Config()
    form = shown(config)
    form.enter("shares", {"a": 80, "b": 50, "c": 20})
    assert form.value != config
    form.enter("shares", {"a": 30, "b": 50, "c": 20})
    assert form.value is config


def test_names_are_picked_from_those_there_are() -> None:
    form = shown(Config())
    assert [name for name, _ in form.fields["intents"]["options"]] == INTENTS
    form.enter("intents", ["request_refund", "card_arrival"])
    assert form.value.intents == ("request_refund", "card_arrival")
    form.enter("intents", [])
    assert form.value.intents == ()


def test_every_option_of_conversations_has_its_field() -> None:
    config = config_for("conversations")()
    form = controls.Form(config)
    names = ("records", "list_size", "seeds", "english_share")
    assert kinds(form, *names) == ["choice", "number", "text", "number"]
    assert set(form.fields) == set(type(config).model_fields)
    form.enter("records", "utterances")
    form.enter("seeds", "mine.csv")
    assert (form.value.records, form.value.seeds) == ("utterances", "mine.csv")
    assert "they leave this machine" in str([field["about"] for field in form.fields.values()])


def test_a_form_is_in_spanish_where_the_settings_say_so(watched, monkeypatch):
    monkeypatch.setenv("GENESIS_LANGUAGE", "es")
    get_settings.cache_clear()
    form = controls.form(
        config_for()(total=100),
        hide={"cells"},
        basics=("dataset", "total"),
        button="Generate",
        preview=lambda c: {"records": c.total},
    )
    about = form.widget.about
    get_settings.cache_clear()
    assert about["says"]["button"] == "Generar" and "Antes de ejecutar nada" in about["state"]["told"]
    described = {field["name"]: field["about"] for field in about["fields"]}
    assert "nombre del conjunto de datos" in described["dataset"] and "ajustes más" in about["says"]["more"]


def test_every_field_of_a_form_is_explained_in_spanish():
    exact = shipped(Path(controls.__file__).parent / "templates" / "es.yaml")
    told = {f.description for name in DOMAINS for field, f in config_for(name).model_fields.items() if field != "cells"}
    for number in ("20", "21", "30", "40", "70"):
        book = read_notebook(find_notebook(number))
        form = next(cell.source for cell in book.cells if "controls.choose(" in cell.source)
        parameters = next(cell.source for cell in book.cells if "parameters" in cell.metadata.get("tags", ()))
        told |= {p.help for name, p in declared(parameters, number).items() if f'"{name}"' in form}
    assert len(told) > 60 and not told - {""} - exact.keys()
