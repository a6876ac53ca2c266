"""Forms: a pydantic config rendered as widgets, and read back as a validated config."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo

from genesis_lab.errors import InvalidInput, MissingDependency, sentence
from genesis_lab.reporting.frontend import display, viewer
from genesis_lab.reporting.html import cell_text, escape, facts

if TYPE_CHECKING:
    import ipywidgets as w

Model = TypeVar("Model", bound=BaseModel)
Choices = Sequence[str] | Mapping[str, Sequence[str]]
"""What a set of names can hold; a mapping groups them."""
Preview = Callable[[Any], Mapping[str, object]]

_SLIDER_STEPS = 1_000
"""An integer range with more steps than this gets a number box: a slider could not hit a value."""
_WIDE = {"width": "560px"}
_STYLE = {"description_width": "170px"}


class Form(Generic[Model]):
    """A form on the screen. `value` is the config it stands for."""

    def __init__(self, config: Model) -> None:
        self._config = config
        self._fields: dict[str, _Field] = {}
        self.widget: w.VBox | None = None
        """What is shown; None where nobody watches."""

    @property
    def value(self) -> Model:
        """The config as the form stands, validated.

        Raises
        ------
        InvalidInput : what is chosen does not fit together; one sentence says what.
        """
        if not self._fields:
            return self._config
        given = self._config.model_dump()
        changed = {name: field.read() for name, field in self._fields.items() if field.touched}
        if not changed:
            return self._config
        try:
            return type(self._config).model_validate({**given, **changed})
        except ValidationError as error:
            raise InvalidInput(sentence(error)) from None


def form(
    config: Model,
    *,
    choices: Mapping[str, Choices] | None = None,
    hide: Iterable[str] = (),
    preview: Preview | None = None,
) -> Form[Model]:
    """Show `config` as a form; read ``form(config).value`` in a later cell.

    An integer or a number with bounds becomes a slider (a box, where the range is wide), a `Literal` or enum a
    dropdown, a set of names check boxes in groups with a search, shares that add up to 1 linked sliders, text and
    paths a text box. Where nobody watches (see `frontend.viewer`) nothing is shown and `value` is `config` itself.

    Parameters
    ----------
    config : an instance of any pydantic model; its values are what the form starts from.
    choices : field to the names it can hold, in groups if given as a mapping: ``{"intents": {"refunds": [...]}}``.
    hide : fields to leave as they are.
    preview : from a valid config to what to show below the form, for example a plan's counts, time and cost.
    """
    shown: Form[Model] = Form(config)
    if viewer() != "notebook":
        return shown
    build(shown, choices=choices or {}, hide=set(hide), preview=preview)
    display(shown.widget)
    return shown


def build(shown: Form[Model], *, choices: Mapping[str, Choices], hide: set[str], preview: Preview | None) -> None:
    """Give `shown` its widgets, without displaying them."""
    try:
        import ipywidgets as w
    except ImportError:
        raise MissingDependency("ipywidgets", "A form", "pip install ipywidgets") from None

    config, rows = shown._config, []
    for name, info in type(config).model_fields.items():
        if name in hide or info.annotation is SecretStr:
            continue
        field = _field(name, info, getattr(config, name), choices.get(name))
        shown._fields[name] = field
        label = w.HTML(_label(name, info), layout={"width": "640px", "margin": "8px 0 0 0"})
        rows.append(w.VBox([label, field.widget]))
    status = w.HTML()

    def refresh(*_: object) -> None:
        try:
            value = shown.value
        except InvalidInput as error:
            status.value = f'<div role="alert" style="color:#b3243a;padding:6px 0">{escape(error)}</div>'
            return
        status.value = facts(preview(value), caption="Before anything runs").page if preview else ""

    for field in shown._fields.values():
        field.on_change(refresh)
    refresh()
    shown.widget = w.VBox([*rows, status], layout={"max_width": "720px"})


def rebalance(percents: Mapping[str, int], changed: str) -> dict[str, int]:
    """Whole percents that add up to 100, with `changed` as it is and the others in their old proportions."""
    others = {name: p for name, p in percents.items() if name != changed}
    if not others:
        return {changed: 100}
    held = min(max(percents[changed], 0), 100)
    left, total = 100 - held, sum(others.values())
    exact = {name: left * p / total if total else left / len(others) for name, p in others.items()}
    whole = {name: int(share) for name, share in exact.items()}
    by_rest = sorted(others, key=lambda name: whole[name] - exact[name])
    for name in by_rest[: left - sum(whole.values())]:
        whole[name] += 1
    return {name: held if name == changed else whole[name] for name in percents}


class _Field:
    """One field of a form: its widget, how to read it, and whether the user touched it."""

    def __init__(self, widget: Any, read: Callable[[], Any], inputs: Sequence[Any]) -> None:
        self.widget, self.read, self._inputs = widget, read, inputs
        self.touched = False
        self._listeners: list[Callable[[], None]] = []
        self.quiet = False
        for each in inputs:
            each.observe(self.changed, names="value")

    def on_change(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def changed(self, _: object) -> None:
        self.touched = True
        if not self.quiet:
            for listener in self._listeners:
                listener()


def _field(name: str, info: FieldInfo, value: Any, choices: Choices | None) -> _Field:
    import ipywidgets as w

    kind, optional = _unwrapped(info.annotation)
    origin = get_origin(kind)
    if choices is None and origin in (tuple, list, set, frozenset):
        choices = _literals(_unwrapped(next(iter(get_args(kind)), None))[0])
    if origin in (tuple, list, set, frozenset) and choices is not None:
        return _picker(value, choices)
    numbers = origin is dict and value and all(isinstance(v, int | float) for v in value.values())
    if numbers and abs(sum(value.values()) - 1) < 1e-6:
        return _shares(value)
    options = _literals(kind)
    if options is not None:
        pairs = [("–", None), *((o, o) for o in options)] if optional else [(o, o) for o in options]
        return _single(w.Dropdown(options=pairs, value=getattr(value, "value", value), layout=_WIDE))
    if kind is bool:
        return _single(w.Checkbox(value=bool(value), description="yes", indent=False))
    if kind in (int, float) and not optional:
        return _number(kind, info, value)
    if kind in (str, Path, int, float):
        text = w.Text(value="" if value is None else str(value), layout=_WIDE, continuous_update=False)
        return _Field(text, lambda: text.value.strip() or (None if optional else ""), [text])
    return _Field(w.HTML(escape(cell_text(value))), lambda: value, [])


def _number(kind: type, info: FieldInfo, value: Any) -> _Field:
    import ipywidgets as w

    low = next((float(m.ge if isinstance(m, Ge) else m.gt) for m in info.metadata if isinstance(m, Ge | Gt)), None)  # type: ignore[arg-type]
    high = next((float(m.le if isinstance(m, Le) else m.lt) for m in info.metadata if isinstance(m, Le | Lt)), None)  # type: ignore[arg-type]
    if kind is int:
        if low is None or high is None:
            return _single(w.IntText(value=value, layout=_WIDE))
        bounds = {"min": int(low), "max": int(high), "value": value, "layout": _WIDE}
        return _single((w.IntSlider if high - low <= _SLIDER_STEPS else w.BoundedIntText)(**bounds))
    if low is None or high is None:
        return _single(w.FloatText(value=value, layout=_WIDE))
    share = (low, high) == (0, 1)
    step = 0.01 if share else (high - low) / 100
    shape = {"readout_format": ".0%"} if share else {}
    return _single(w.FloatSlider(min=low, max=high, step=step, value=value, layout=_WIDE, **shape))


def _shares(value: Mapping[str, float]) -> _Field:
    """Sliders in whole percents; moving one moves the others, so that they add up to 100."""
    import ipywidgets as w

    start = rebalance({"": 0, **{k: round(100 * v) for k, v in value.items()}}, "")
    sliders = {
        k: w.IntSlider(value=start[k], min=0, max=100, description=k.replace("_", " "), readout_format="d",
                       style=_STYLE, layout=_WIDE)
        for k in value
    }  # fmt: skip
    field = _Field(w.VBox(list(sliders.values())), lambda: {k: s.value / 100 for k, s in sliders.items()}, [])
    moving, before = "", dict(start)

    def follow(name: str) -> None:
        nonlocal moving, before
        if field.quiet:
            return
        if name != moving:  # proportions are those from before this slider began to move, however far it goes
            moving, before = name, {k: s.value for k, s in sliders.items()}
        field.quiet = True
        for other, percent in rebalance({**before, name: sliders[name].value}, name).items():
            sliders[other].value = percent
        field.quiet = False

    for name, slider in sliders.items():
        slider.observe(lambda _, name=name: follow(name), names="value")
        slider.observe(field.changed, names="value")
    return field


def _picker(value: Iterable[str], choices: Choices) -> _Field:
    """Check boxes in groups, with a search and buttons for all and none. Nothing chosen reads as an empty tuple."""
    import ipywidgets as w

    groups = dict(choices) if isinstance(choices, Mapping) else {"": list(choices)}
    chosen, wide = {str(v) for v in value}, {"width": "330px", "margin": "0"}
    boxes = {
        name: w.Checkbox(value=name in chosen, description=name, indent=False, layout=wide)
        for names in groups.values()
        for name in names
    }
    search, count = w.Text(placeholder="search", layout={"width": "240px"}), w.HTML()
    field = _Field(w.VBox(), lambda: tuple(n for n, box in boxes.items() if box.value), list(boxes.values()))

    def found(names: Iterable[str]) -> list[str]:
        return [name for name in names if search.value.strip().lower().replace(" ", "_") in name.lower()]

    def button(text: str, names: Iterable[str], on: Callable[[list[str]], bool]) -> Any:
        def click(_: object) -> None:
            hits = found(names)
            state, field.quiet = on(hits), True
            for name in hits:
                boxes[name].value = state
            field.quiet = False
            field.changed(None)

        pressed = w.Button(description=text, layout={"width": "110px"})
        pressed.on_click(click)
        return pressed

    panels = {}
    for group, names in groups.items():
        grid = w.HBox([boxes[n] for n in names], layout={"flex_flow": "row wrap"})
        whole = button("all / none", names, lambda hits: not all(boxes[n].value for n in hits))
        panels[group] = w.Accordion([w.VBox([whole, grid])]) if group else grid

    def refresh(*_: object) -> None:
        for (group, panel), names in zip(panels.items(), groups.values(), strict=True):
            hits = found(names)
            for name in names:
                boxes[name].layout.display = None if name in hits else "none"
            panel.layout.display = None if hits else "none"
            if group:
                panel.titles = (f"{group} ({sum(boxes[n].value for n in names)}/{len(names)})",)
                panel.selected_index = 0 if search.value.strip() else panel.selected_index
        picked = sum(box.value for box in boxes.values())
        count.value = f"{picked} of {len(boxes)} chosen" if picked else f"none chosen: all {len(boxes)}"

    search.observe(refresh, names="value")
    field.on_change(refresh)
    refresh()
    every = (button("choose all", boxes, lambda _: True), button("choose none", boxes, lambda _: False))
    field.widget.children = [w.HBox([search, *every, count]), *panels.values()]
    return field


def _single(widget: Any) -> _Field:
    return _Field(widget, lambda: widget.value, [widget])


def _label(name: str, info: FieldInfo) -> str:
    about = f' <span style="color:#5b6773">{escape(info.description)}</span>' if info.description else ""
    return f"<b>{escape(name.replace('_', ' '))}</b>{about}"


def _unwrapped(annotation: Any) -> tuple[Any, bool]:
    """The type inside Annotated and Optional, and whether None is allowed."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [a for a in get_args(annotation) if a is not type(None)]
        if len(inner) == 1:
            return _unwrapped(inner[0])[0], len(inner) < len(get_args(annotation))
        return annotation, False
    return annotation, False


def _literals(kind: Any) -> list[Any] | None:
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return [member.value for member in kind]
    return None
