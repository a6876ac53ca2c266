"""A form gives back a validated config; where nobody watches it gives back the one it got."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, field_validator
from traitlets import TraitError

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
    form = controls.Form(config)
    controls.build(form, choices={"intents": INTENTS}, hide=set(), preview=lambda c: {"records": c.total})
    return form


def widget(form: controls.Form[Config], name: str):
    """What a user changes of a field: the box that counts, where there is one beside a slider."""
    field = form._fields[name]
    return field.inputs[0] if len(field.inputs) == 1 else field.widget


def panel(form: controls.Form[Config]) -> str:
    return form.widget.children[0].children[1].children[1].value


def told_changed(form: controls.Form[Config]) -> str:
    return form.widget.children[0].children[1].children[0].children[0].value


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
    widget(form, "tone").value = "cool"
    widget(form, "share").value = 25
    widget(form, "path").value = " data.csv "
    assert form.value == Config(tone="cool", share=0.25, path="data.csv")


def test_kinds_of_fields_get_fitting_widgets() -> None:
    form = shown(Config())
    kinds = {name: type(widget(form, name)).__name__ for name in ("total", "share", "turns", "tone", "path")}
    assert kinds == {"total": "IntText", "share": "FloatText", "turns": "IntText", "tone": "Dropdown", "path": "Text"}
    assert [type(part).__name__ for part in form._fields["turns"].widget.children] == ["IntSlider", "IntText", "Label"]


def test_an_invalid_choice_is_one_sentence() -> None:
    form = shown(Config())
    widget(form, "turns").value = 5
    with pytest.raises(InvalidInput, match=r"^turns: must be even\.$"):
        _ = form.value
    assert "turns: must be even" in panel(form)


def test_the_preview_follows_the_form() -> None:
    form = shown(Config())
    widget(form, "total").value = 5000
    assert "5,000" in panel(form)


@pytest.mark.parametrize("error", [InvalidInput("tone: no price is known for cool."), KeyError("cool")])
def test_a_preview_that_fails_says_why_and_leaves_no_old_numbers(error: Exception) -> None:
    seen = []

    def preview(config: Config) -> dict[str, object]:
        seen.append(panel(form) if form.widget else "")
        if config.tone == "cool":
            raise error
        return {"records": config.total}

    form = controls.Form(Config())
    controls.build(form, choices={}, hide=set(), preview=preview, button="Generate")
    assert "100" in panel(form) and "disabled" not in panel(form)
    widget(form, "tone").value = "cool"
    assert "calculating" in seen[-1] and "100" not in seen[-1]
    assert "cool" in panel(form) and 'role="alert"' in panel(form) and "100" not in panel(form)
    assert "disabled" in panel(form), "what can't be is not generated"
    widget(form, "tone").value = "warm"
    assert "100" in panel(form) and "alert" not in panel(form)


@pytest.mark.parametrize(("name", "value"), [("total", 5), ("turns", 14), ("share", 130)])
def test_a_value_out_of_range_is_said_and_not_changed(name: str, value: float) -> None:
    form = shown(Config())
    widget(form, name).value = value
    assert widget(form, name).value == value
    assert f"{name} must be at " in panel(form)
    notes = {
        field: form.widget.children[0].children[0].children[i].children[-1].value
        for i, field in enumerate(form._fields)
    }
    assert [field for field, note in notes.items() if note] == [name], "it is marked where it is"
    with pytest.raises(InvalidInput, match=rf"^{name} must be at (least|most)"):
        _ = form.value


def test_a_slider_moves_its_box_and_a_box_its_slider() -> None:
    form = shown(Config())
    slider, box, _ = form._fields["turns"].widget.children
    slider.value = 6
    assert box.value == 6 and form.value.turns == 6
    box.value = 8
    assert slider.value == 8


def test_what_was_chosen_stays_when_the_cell_runs_again(watched: None) -> None:
    first = controls.form(Config(), choices={"intents": INTENTS})
    widget(first, "total").value, widget(first, "tone").value = 1540, "cool"
    widget(first, "intents").value = ("card_arrival",)
    first._fields["shares"].inputs[0].value = 80
    again = controls.form(Config(), choices={"intents": INTENTS})
    assert again is not first and again.value == first.value
    assert "<b>total, tone, shares, intents</b>" in told_changed(again)
    widget(again, "tone").value = "warm"
    assert "<b>total, shares, intents</b>" in told_changed(again), "there and back is no change"


def test_a_parameter_that_was_changed_since_wins_over_the_form(watched: None) -> None:
    form = controls.form(Config())
    widget(form, "total").value, widget(form, "turns").value = 1540, 8
    assert controls.form(Config(total=5000)).value == Config(total=5000, turns=8)


def test_a_form_goes_back_to_the_parameters(watched: None) -> None:
    form = controls.form(Config(tone="cool"))
    widget(form, "total").value = 1540
    reset = form.widget.children[0].children[1].children[0].children[1]
    assert reset.description == "reset to parameters" and reset.layout.display != "none"
    reset.click()
    assert form.value == Config(tone="cool") and told_changed(form) == ""
    assert controls.form(Config(tone="cool")).value == Config(tone="cool")


def test_what_can_t_be_stays_too_and_is_said_where_it_is_used(watched: None) -> None:
    widget(controls.form(Config()), "turns").value = 5
    again = controls.form(Config())
    assert "turns: must be even" in panel(again)
    with pytest.raises(InvalidInput, match="must be even"):
        _ = again.value


def test_the_basics_are_shown_and_the_others_folded() -> None:
    form = controls.Form(Config())
    controls.build(form, choices={}, hide={"path"}, preview=None, basics=["tone", "total"])
    *first, fold = form.widget.children[0].children[0].children
    assert [row.children[0].value.split("</b>")[0].split("<b>")[1] for row in first] == ["tone", "total"]
    assert fold.titles == ("4 more settings",) and fold.selected_index is None


def test_several_teachers_and_addresses_are_written_one_a_line() -> None:
    config = config_for("conversations")()
    form = controls.Form(config)
    controls.build(form, choices={}, hide=set(), preview=None)
    widget(form, "base_urls").value = "http://localhost:11434/v1\n\n http://localhost:8000/v1 "
    widget(form, "teachers").value = "ollama:llama3.1:8b = 3\noffline"
    assert form.value.base_urls == ("http://localhost:11434/v1", "http://localhost:8000/v1")
    assert form.value.teachers == {"ollama:llama3.1:8b": 0.75, "offline": 0.25}
    widget(form, "teachers").value = "ollama:llama3.1:8b = lots"
    assert "must be a number" in panel(form)


def test_a_choice_says_what_is_to_be_known_of_it() -> None:
    form = controls.Form(Config(path="b"))
    controls.build(
        form,
        choices={"path": {"a": "770 conversations", "b": ""}, "tone": {"warm": "ready", "cool": "cold"}},
        hide=set(),
        preview=None,
    )
    assert ("a · 770 conversations", "a") in widget(form, "path").options
    assert widget(form, "tone").options == (("warm · ready", "warm"), ("cool · cold", "cool"))
    widget(form, "path").value = "a"
    assert form.value.path == "a"


def test_where_the_name_is_taken_the_form_offers_a_free_one_and_to_replace(own_output_root: Path) -> None:
    made = config_for()(dataset="bank", total=10, intents=("card_arrival",))
    generate(made)
    other = config_for()(**made.model_dump() | {"total": 12})

    def ways_out(press: str = "") -> list[str]:
        buttons = form.widget.children[0].children[1].children[2].children
        for button in buttons:
            if button.description == press:
                button.click()
        return [button.description for button in buttons]

    def begin() -> controls.Form:
        form = controls.Form(other)
        controls.build(form, choices={}, hide={"cells"}, preview=lambda c: c.check_room() or {"records": c.total})
        return form

    form = begin()
    assert "already holds a dataset made with other settings" in panel(form)
    assert ways_out("Name it bank_2") == ["Name it bank_2", "Replace it"]
    assert form.value.dataset == "bank_2" and "12" in panel(form) and ways_out() == []
    generate(form.value)
    form = begin()
    assert "Name it bank_3" in ways_out("Replace it")
    assert (form.value.dataset, form.value.replace, ways_out()) == ("bank", True, [])
    widget(form, "replace").value, widget(form, "dataset").value = False, "bank_2"
    assert ways_out() == [], "of these very settings it is not taken"


def test_names_are_a_dropdown_even_where_there_are_none_yet() -> None:
    form = controls.Form(Config(path="b"))
    controls.build(form, choices={"path": dict[str, str]()}, hide=set(), preview=None)
    assert widget(form, "path").options == (("–", None), ("b", "b")) and form.value.path == "b"


def test_parameters_of_a_notebook_are_chosen_and_its_variables_follow(watched: None) -> None:
    source = "dataset: str = 'a'  # which one\nlimit: int | None = None  # most records\nseed: int = 0"
    namespace = {"In": ["", source, "choose()"], "dataset": "a", "limit": None, "seed": 3}
    controls.choose(namespace, "dataset", "limit", choices={"dataset": lambda: ["a", "b"]})
    form = next(iter(controls._LIVE.values()))
    widget(form, "dataset").value, widget(form, "limit").value = "b", "20"
    assert (namespace["dataset"], namespace["limit"], namespace["seed"]) == ("b", 20, 3)
    namespace |= {"dataset": "a", "limit": None}  # the cell of parameters is run again
    controls.choose(namespace, "dataset", "limit", choices={"dataset": lambda: ["a", "b"]})
    assert (namespace["dataset"], namespace["limit"]) == ("b", 20)
    widget(next(iter(controls._LIVE.values())), "limit").value = "many"
    with pytest.raises(InvalidInput, match=r"^limit must be a whole number"):
        controls.choose(namespace, "dataset", "limit", choices={"dataset": lambda: ["a", "b"]})


def test_headless_parameters_stay_as_they_are() -> None:
    namespace = {"dataset": "a"}
    controls.choose(namespace, "dataset", choices={"dataset": lambda: 1 / 0})
    assert namespace == {"dataset": "a"}


def test_shares_are_read_in_proportion_so_they_always_add_up() -> None:
    form = shown(Config())
    *rows, told = widget(form, "shares").children
    sliders = [row.children[0] for row in rows]
    for slider, to in [(sliders[0], 80), (sliders[1], 100), (sliders[2], 33), (sliders[0], 0)]:
        slider.value = to
        assert sum(form.value.shares.values()) == pytest.approx(1)
    assert form.value.shares == pytest.approx({"a": 0, "b": 100 / 133, "c": 33 / 133})
    assert told.value == "so: a 0%, b 75%, c 25%"
    for slider in sliders:
        slider.value = 0
    with pytest.raises(InvalidInput, match="add up to 1"):
        _ = form.value


def test_a_slider_moved_there_and_back_changes_nothing() -> None:
    config = Config()
    form = shown(config)
    slider = widget(form, "shares").children[0].children[0]
    slider.value = 80
    assert form.value != config
    slider.value = 30
    assert form.value is config


def test_names_are_picked_from_those_there_are() -> None:
    form = shown(Config())
    widget(form, "intents").value = ("request_refund", "card_arrival")
    assert form.value.intents == ("request_refund", "card_arrival")
    with pytest.raises(TraitError):
        widget(form, "intents").value = ("no_such_intent",)
    widget(form, "intents").value = ()
    assert form.value.intents == ()


def test_every_option_of_conversations_has_its_field() -> None:
    config = config_for("conversations")()
    form = controls.Form(config)
    controls.build(form, choices={}, hide=set(), preview=None)
    kinds = {name: type(widget(form, name)).__name__ for name in ("records", "list_size", "seeds", "english_share")}
    assert kinds == {"records": "Dropdown", "list_size": "IntText", "seeds": "Text", "english_share": "FloatText"}
    assert set(form._fields) == set(type(config).model_fields)
    widget(form, "records").value, widget(form, "seeds").value = "utterances", "mine.csv"
    assert (form.value.records, form.value.seeds) == ("utterances", "mine.csv")
    assert "they leave this machine" in str(
        [row.children[0].value for row in form.widget.children[0].children[0].children]
    )


def test_a_form_is_in_spanish_where_the_settings_say_so(monkeypatch):
    monkeypatch.setenv("GENESIS_LANGUAGE", "es")
    get_settings.cache_clear()
    form = controls.Form(config_for()(total=100))
    controls.build(
        form,
        choices={},
        hide={"cells"},
        basics=("dataset", "total"),
        button="Generate",
        preview=lambda c: {"records": c.total},
    )
    get_settings.cache_clear()
    assert ">Generar</button>" in panel(form) and "Antes de ejecutar nada" in panel(form)
    fields = form.widget.children[0].children[0].children
    assert "nombre del conjunto de datos" in fields[0].children[0].value and "ajustes más" in fields[-1].titles[0]


def test_every_field_of_a_form_is_explained_in_spanish():
    exact = shipped(Path(controls.__file__).parent / "templates" / "es.yaml")
    told = {f.description for name in DOMAINS for field, f in config_for(name).model_fields.items() if field != "cells"}
    for number in ("20", "21", "30", "40", "70"):
        book = read_notebook(find_notebook(number))
        form = next(cell.source for cell in book.cells if "controls.choose(" in cell.source)
        parameters = next(cell.source for cell in book.cells if "parameters" in cell.metadata.get("tags", ()))
        told |= {p.help for name, p in declared(parameters, number).items() if f'"{name}"' in form}
    assert len(told) > 60 and not told - {""} - exact.keys()
