"""A form gives back a validated config; where nobody watches it gives back the one it got."""

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, field_validator
from traitlets import TraitError

from genesis_lab.errors import InvalidInput
from genesis_lab.generation import config_for
from genesis_lab.reporting import controls

SHARES = {"a": 0.3, "b": 0.5, "c": 0.2}
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
    return form._fields[name].widget


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
    widget(form, "share").value = 0.25
    widget(form, "path").value = " data.csv "
    assert form.value == Config(tone="cool", share=0.25, path="data.csv")


def test_kinds_of_fields_get_fitting_widgets() -> None:
    form = shown(Config())
    kinds = {name: type(widget(form, name)).__name__ for name in ("total", "share", "turns", "tone", "path")}
    assert kinds == {
        "total": "BoundedIntText", "share": "FloatSlider", "turns": "IntSlider", "tone": "Dropdown", "path": "Text",
    }  # fmt: skip


def test_an_invalid_choice_is_one_sentence() -> None:
    form = shown(Config())
    widget(form, "turns").value = 5
    with pytest.raises(InvalidInput, match=r"^turns: must be even\.$"):
        _ = form.value
    assert "turns: must be even" in form.widget.children[-1].value


def test_the_preview_follows_the_form() -> None:
    form = shown(Config())
    widget(form, "total").value = 5000
    assert "5,000" in form.widget.children[-1].value


def test_shares_are_read_in_proportion_so_they_always_add_up() -> None:
    form = shown(Config())
    *sliders, told = widget(form, "shares").children
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
    slider = widget(form, "shares").children[0]
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
    assert kinds == {"records": "Dropdown", "list_size": "IntSlider", "seeds": "Text", "english_share": "FloatSlider"}
    assert set(form._fields) == set(type(config).model_fields)
    widget(form, "records").value, widget(form, "seeds").value = "utterances", "mine.csv"
    assert (form.value.records, form.value.seeds) == ("utterances", "mine.csv")
    assert "they leave this machine" in str([box.children[0].value for box in form.widget.children[:-1]])
