"""Forms: a pydantic config rendered as widgets, and read back as a validated config."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from genesis_lab.errors import InvalidInput, MissingDependency, sentence
from genesis_lab.reporting.frontend import display, viewer
from genesis_lab.reporting.html import cell_text, escape, facts

if TYPE_CHECKING:
    import ipywidgets as w

Model = TypeVar("Model", bound=BaseModel)
Preview = Callable[[Any], Mapping[str, object]]

_SLIDER_STEPS = 1_000
"""An integer range with more steps than this gets a number box: a slider could not hit a value."""
_WIDE = {"width": "560px"}


class Field(NamedTuple):
    """One field of a form: its widget, how to read it, the widgets that change it, and what it said at first."""

    widget: Any
    read: Callable[[], Any]
    inputs: Sequence[Any]
    first: Any


class Form(Generic[Model]):
    """A form on the screen. `value` is the config it stands for."""

    def __init__(self, config: Model) -> None:
        self._config = config
        self._fields: dict[str, Field] = {}
        self.widget: w.VBox | None = None
        """What is shown; None where nobody watches."""

    @property
    def value(self) -> Model:
        """The config as the form stands, validated.

        Raises
        ------
        InvalidInput : what is chosen does not fit together; one sentence says what.
        """
        read = {name: (field.read(), field.first) for name, field in self._fields.items()}
        changed = {name: now for name, (now, first) in read.items() if now != first}
        if not changed:
            return self._config
        try:
            return type(self._config).model_validate({**self._config.model_dump(), **changed})
        except ValidationError as error:
            raise InvalidInput(sentence(error)) from None


def form(
    config: Model,
    *,
    choices: Mapping[str, Sequence[str]] | None = None,
    hide: Iterable[str] = (),
    preview: Preview | None = None,
) -> Form[Model]:
    """Show `config` as a form; read ``form(config).value`` in a later cell.

    An integer with bounds becomes a slider (a box, where the range is wide), a `Literal` a dropdown, a set of names a
    list to choose from (shift or ctrl for several), shares that add up to 1 sliders in proportion, text and paths a text box. Where nobody
    watches (see `frontend.viewer`) nothing is shown and `value` is `config` itself.

    Parameters
    ----------
    config : an instance of any pydantic model; its values are what the form starts from.
    choices : field to the names it can hold: ``{"intents": ["request_refund", …]}``.
    hide : fields to leave as they are.
    preview : from a valid config to what to show below the form, for example a plan's counts, time and cost.
    """
    shown: Form[Model] = Form(config)
    if viewer() == "notebook":
        build(shown, choices=choices or {}, hide=set(hide), preview=preview)
        display(shown.widget)
    return shown


def build(shown: Form[Model], *, choices: Mapping[str, Sequence[str]], hide: set[str], preview: Preview | None) -> None:
    """Give `shown` its widgets, without displaying them."""
    try:
        import ipywidgets as w
    except ImportError:
        raise MissingDependency("ipywidgets", "A form", "pip install ipywidgets") from None

    config, rows, status = shown._config, [], w.HTML()

    def refresh(*_: object) -> None:
        try:
            value = shown.value
        except InvalidInput as error:
            status.value = f'<div role="alert" style="color:#b3243a;padding:6px 0">{escape(error)}</div>'
            return
        status.value = facts(preview(value), caption="Before anything runs").page if preview else ""

    for name, info in type(config).model_fields.items():
        if name in hide or info.annotation is SecretStr:
            continue
        field = shown._fields[name] = _field(info, getattr(config, name), choices.get(name))
        about = f' <span style="color:#5b6773">{escape(info.description)}</span>' if info.description else ""
        label = f"<b>{escape(name.replace('_', ' '))}</b>{about}"
        rows.append(w.VBox([w.HTML(label, layout={"width": "640px", "margin": "8px 0 0 0"}), field.widget]))
        for each in field.inputs:
            each.observe(refresh, names="value")
    refresh()
    shown.widget = w.VBox([*rows, status], layout={"max_width": "720px"})


def _field(info: FieldInfo, value: Any, choices: Sequence[str] | None) -> Field:
    import ipywidgets as w

    kind, optional = _unwrapped(info.annotation)
    origin, options = get_origin(kind), _literals(kind)
    if origin in (tuple, list, set, frozenset):
        choices = choices or _literals(_unwrapped(next(iter(get_args(kind)), None))[0])
    if choices:
        chosen = tuple(name for name in choices if name in set(map(str, value)))
        return _single(w.SelectMultiple(options=list(choices), value=chosen, rows=min(len(choices), 8), layout=_WIDE))
    numbers = origin is dict and value and all(isinstance(v, int | float) for v in value.values())
    if numbers and abs(sum(value.values()) - 1) < 1e-6:
        return _shares(value)
    if options:
        none = [("–", None)] if optional else []
        return _single(w.Dropdown(options=[*none, *((o, o) for o in options)], value=value, layout=_WIDE))
    if kind is bool:
        return _single(w.Checkbox(value=bool(value), description="yes", indent=False))
    if kind in (int, float) and not optional:
        return _single(_number(kind, info, value))
    if kind in (str, Path, int, float):
        text = w.Text(value="" if value is None else str(value), layout=_WIDE, continuous_update=False)
        return _single(text, lambda: text.value.strip() or (None if optional else ""))
    return Field(w.HTML(escape(cell_text(value))), lambda: value, (), value)


def _single(widget: Any, read: Callable[[], Any] | None = None) -> Field:
    read = read or (lambda: widget.value)
    return Field(widget, read, [widget], read())


def _number(kind: type, info: FieldInfo, value: Any) -> Any:
    import ipywidgets as w

    sides = {"ge": "min", "gt": "min", "le": "max", "lt": "max"}
    bounds = ((side, getattr(m, name, None)) for name, side in sides.items() for m in info.metadata)
    limits = {side: bound for side, bound in bounds if bound is not None}
    if kind is float and limits == {"min": 0, "max": 1}:
        return w.FloatSlider(value=value, min=0, max=1, step=0.01, readout_format=".0%", layout=_WIDE)
    if kind is float or len(limits) < 2:
        return (w.FloatText if kind is float else w.IntText)(value=value, layout=_WIDE)
    box = w.IntSlider if limits["max"] - limits["min"] <= _SLIDER_STEPS else w.BoundedIntText
    return box(value=value, layout=_WIDE, **limits)


def _shares(value: Mapping[str, float]) -> Field:
    """Sliders in proportion: what is read is the part that each has of their sum."""
    import ipywidgets as w

    style = {"description_width": "170px"}
    sliders = {
        name: w.FloatSlider(value=100 * share, min=0, max=100, step=1, description=name.replace("_", " "),
                            readout_format=".0f", style=style, layout=_WIDE)
        for name, share in value.items()
    }  # fmt: skip
    told = w.HTML()

    def read() -> dict[str, float]:
        total = sum(slider.value for slider in sliders.values()) or 1.0
        return {name: slider.value / total for name, slider in sliders.items()}

    def tell(*_: object) -> None:
        told.value = "so: " + ", ".join(f"{escape(name)} {share:.0%}" for name, share in read().items())

    for slider in sliders.values():
        slider.observe(tell, names="value")
    tell()
    return Field(w.VBox([*sliders.values(), told]), read, list(sliders.values()), read())


def _unwrapped(annotation: Any) -> tuple[Any, bool]:
    """The type inside Annotated and Optional, and whether None is allowed."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [a for a in get_args(annotation) if a is not type(None)]
        if len(inner) == 1:
            return _unwrapped(inner[0])[0], len(inner) < len(get_args(annotation))
    return annotation, False


def _literals(kind: Any) -> list[Any]:
    return list(get_args(kind)) if get_origin(kind) is Literal else []
