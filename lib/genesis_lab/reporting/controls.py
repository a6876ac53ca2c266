"""Forms: a pydantic config rendered as widgets, and read back as a validated config."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr, ValidationError, create_model
from pydantic import Field as Declared
from pydantic.fields import FieldInfo

from genesis_lab.errors import GenesisError, InvalidInput, MissingDependency, Taken, sentence
from genesis_lab.parameters import declared
from genesis_lab.reporting.frontend import display, viewer
from genesis_lab.reporting.html import cell_text, escape, facts
from genesis_lab.reporting.wording import translated, translated_html
from genesis_lab.settings import get_settings

if TYPE_CHECKING:
    import ipywidgets as w

Model = TypeVar("Model", bound=BaseModel)
Preview = Callable[[Any], Mapping[str, object]]
Choices = Sequence[str] | Mapping[str, str]

_SLIDER_STEPS = 1_000
"""An integer range with more steps than this gets a number box alone: a slider could not hit a value."""
_WIDE = {"width": "98%", "max_width": "520px"}
_QUIET = "color:var(--jp-ui-font-color2,#5b6773)"
_ALERT = "color:var(--jp-error-color1,#b3243a);padding:4px 0;line-height:1.4;white-space:normal"
_RUN = "In JupyterLab: run this cell and all below. Elsewhere: run the cells below."


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
    def changed(self) -> dict[str, Any]:
        """What differs from the config that the form began with, as it was chosen or typed."""
        read = {name: (field.read(), field.first) for name, field in self._fields.items()}
        return {name: now for name, (now, first) in read.items() if now != first}

    @property
    def value(self) -> Model:
        """The config as the form stands, validated.

        Raises
        ------
        InvalidInput : what is chosen does not fit together; one sentence says what.
        """
        if not (changed := self.changed):
            return self._config
        try:
            return type(self._config).model_validate({**self._config.model_dump(), **changed})
        except ValidationError as error:
            raise InvalidInput(sentence(error)) from None


_LIVE: dict[tuple[str, ...], Form[Any]] = {}
"""The forms of this notebook session, by their fields: a cell that is run again finds what was chosen in its form."""


def form(
    config: Model,
    *,
    basics: Iterable[str] = (),
    choices: Mapping[str, Choices | Callable[[], Choices]] | None = None,
    hide: Iterable[str] = (),
    preview: Preview | None = None,
    button: str = "",
) -> Form[Model]:
    """Show `config` as a form; read ``form(config).value`` in a later cell.

    A number with bounds becomes a slider with a box (a box, where the range is wide), a `Literal` a dropdown, a set of names
    a list to choose from (shift or ctrl for several), shares that add up to 1 sliders in proportion, names and shares lines
    of text. Where nobody watches (see `frontend.viewer`) nothing is shown and `value` is `config` itself.

    When its cell is run again, what was chosen stays, but for fields whose value in `config` has been changed since.

    Parameters
    ----------
    config : an instance of any pydantic model; its values are what the form starts from.
    basics : the fields to show at once, the others are folded; none: all.
    choices : field to the names it can hold, or to each with what is to be known of it; or a function that finds them.
    hide : fields to leave as they are.
    preview : from a valid config to what to show beside the form, for example a plan's counts, time and cost.
    button : what the button says that runs the cells below; empty: there is none.
    """
    shown: Form[Model] = Form(config)
    if viewer() == "notebook":
        key = (type(config).__qualname__, *type(config).model_fields)
        before, _LIVE[key] = _LIVE.get(key), shown
        kept = {name: before._fields[name] for name in before.changed} if before else {}
        kept = {n: field for n, field in kept.items() if before and getattr(before._config, n) == getattr(config, n)}
        known = {name: found() if callable(found) else found for name, found in (choices or {}).items()}
        options: dict[str, Any] = {"preview": preview, "basics": list(basics), "button": button, "kept": kept}
        build(shown, choices=known, hide=set(hide), show=display, **options)
    return shown


def choose(namespace: dict[str, Any], *names: str, **options: Any) -> None:
    """Show these parameters of a notebook as a form, whose values its variables in `namespace` (``globals()``) take.

    `options` are those of `form`. Where nobody watches nothing happens.
    """
    if viewer() != "notebook":
        return
    source = next((s for s in reversed(namespace["In"]) if all(re.search(rf"^{n}: ", s, re.M) for n in names)), "")
    known = {name: found for name, found in declared(source, "this notebook").items() if name in names}
    fields: Any = {name: (p.type, Declared(p.default, description=p.help)) for name, p in known.items()}
    before, taken = _LIVE.get(("Parameters", *known)), namespace.setdefault("_chosen", {})
    # A variable that the form itself has set says nothing of the parameter.
    ours = {n for n in known if before and n in taken and taken[n] == namespace[n]}
    now = create_model("Parameters", **fields)(
        **{n: getattr(before._config, n) if before and n in ours else namespace[n] for n in known}
    )

    def take(value: BaseModel) -> dict[str, object]:
        taken.update(dict(value))
        namespace.update(taken)
        return {}

    _ = form(now, **{"preview": take, **options}).value


def build(
    shown: Form[Model],
    *,
    choices: Mapping[str, Choices],
    hide: set[str],
    preview: Preview | None,
    basics: Sequence[str] = (),
    button: str = "",
    kept: Mapping[str, Field] | None = None,
    show: Callable[[Any], Any] = lambda widget: None,
) -> None:
    """Give `shown` its widgets, as they stood in the fields `kept` of an earlier one; `show` gets them before the preview."""
    try:
        import ipywidgets as w
        from traitlets import TraitError
    except ImportError:
        raise MissingDependency("ipywidgets", "A form", "pip install ipywidgets") from None

    config, rows, notes = shown._config, dict[str, Any](), dict[str, Any]()
    language = get_settings().language
    says = partial(translated, language=language)
    panel, changes = w.HTML(layout={"width": "98%"}), w.HTML()
    reset = w.Button(description=says("reset to parameters"), layout={"width": "auto"})
    ways_out = _box(w.HBox, [], flex_flow="row wrap")

    def way_out(label: str, name: str, value: object) -> Any:
        press = w.Button(description=says(label), layout={"width": "auto"})
        press.on_click(lambda _: setattr(shown._fields[name].inputs[0], "value", value))
        return press

    def refresh(*_: object) -> None:
        names = ", ".join(name.replace("_", " ") for name in shown.changed)
        changes.value = f"{says('changed in the form:')} <b>{escape(names)}</b>" if names else ""
        reset.layout.display = None if names else "none"
        panel.value = f'<div role="status" style="{_QUIET}">{says("calculating …")}</div>' if preview else ""
        at_fault, told, ways_out.children = "", "", ()
        try:
            value: Any = shown.value
            found = preview(value) if preview else {}
            told = translated_html(facts(found, caption="Before anything runs").page, language) if found else ""
        except (Exception, KeyboardInterrupt) as error:
            ours = str(error) if isinstance(error, GenesisError) else f"{type(error).__name__}: {error}"
            at_fault = re.split(r"\W", ours)[0]
            if isinstance(error, Taken) and {"dataset", "replace"} <= shown._fields.keys():
                other = way_out(f"Name it {error.free}", "dataset", str(Path(value.dataset).with_name(error.free)))
                ways_out.children = [other, way_out("Replace it", "replace", True)]
            told = f'<div role="alert" style="{_ALERT}"><b>{says("Not yet:")}</b> {escape(ours)}</div>'
        for name, note in notes.items():
            note.value = (
                f'<span style="{_ALERT}">{says("↑ see the sentence beside the form")}</span>'
                if name == at_fault
                else ""
            )
        press = f'class="jupyter-button mod-primary" title="{says(_RUN)}" data-commandlinker-command="notebook:run-all-below"'
        off = "disabled" if 'role="alert"' in told else ""
        panel.value = told + (
            f"<button {press} {off} style='width:auto'>{escape(says(button))}</button>" if button else ""
        )

    for name, info in type(config).model_fields.items():
        if name in hide or info.annotation is SecretStr:
            continue
        field = _field(info, getattr(config, name), choices.get(name))
        for now, then in zip(field.inputs, kept[name].inputs if kept and name in kept else (), strict=False):
            with suppress(TraitError):  # a name that is no longer among those there are
                now.value = then.value
        shown._fields[name], notes[name] = field, w.HTML()
        about = f' <span style="{_QUIET}">{escape(says(info.description))}</span>' if info.description else ""
        said = f'<div style="line-height:1.4;white-space:normal"><b>{escape(name.replace("_", " "))}</b>{about}</div>'
        rows[name] = _box(w.VBox, [w.HTML(said, layout={"width": "98%"}), field.widget, notes[name]], margin="6px 0 0")
        for each in field.inputs:
            each.observe(refresh, names="value")
    first = [rows[name] for name in basics if name in rows] or list(rows.values())
    if rest := [row for row in rows.values() if row not in first]:
        first.append(
            w.Accordion([_box(w.VBox, rest)], titles=(says(f"{len(rest)} more settings"),), selected_index=None)
        )
    side = [_box(w.HBox, [changes, reset], flex_flow="row wrap", align_items="center"), panel, ways_out]
    # Wrapped in reverse: where there is no room beside the fields the panel stands above them.
    halves = [_box(w.VBox, first, flex="3 1 360px"), _box(w.VBox, side, flex="2 1 240px")]
    whole = _box(w.HBox, halves, flex_flow="row wrap-reverse", align_items="flex-end", grid_gap="0 24px")
    reset.on_click(lambda _: build(shown, choices=choices, hide=hide, preview=preview, basics=basics, button=button))

    if shown.widget is None:
        shown.widget = _box(w.VBox, [], max_width="980px")
    shown.widget.children = [whole]
    show(shown.widget)
    refresh()


def _box(kind: Any, children: Sequence[Any], **layout: Any) -> Any:
    """A box that never has a scroll bar of its own."""
    return kind(children, layout={"overflow": "visible", "min_width": "0", **layout})


def _field(info: FieldInfo, value: Any, choices: Choices | None) -> Field:
    import ipywidgets as w

    kind, optional = _unwrapped(info.annotation)
    origin, options = get_origin(kind), _literals(kind)
    inner = [_unwrapped(of)[0] for of in get_args(kind)]
    if origin in (tuple, list, set, frozenset):
        if names := list(choices or _literals(inner[0] if inner else None)):
            chosen = tuple(name for name in names if name in set(map(str, value)))
            return _single(w.SelectMultiple(options=names, value=chosen, rows=min(len(names), 8), layout=_WIDE))
        if inner and inner[0] is str:
            return _lines(value)
    numbers = origin is dict and all(isinstance(v, int | float) for v in value.values())
    if numbers and info.default and abs(sum(value.values()) - 1) < 1e-6:
        return _shares(value)
    if numbers and inner[-1] is float:
        return _lines(value)
    if choices is not None or options:
        known = options if choices is None else choices
        told = known if isinstance(known, Mapping) else {}
        held = dict.fromkeys([*([None] if optional else []), *([] if value in known else [value]), *known])
        pairs = [(f"{name or '–'} · {told[name]}" if told.get(name) else name or "–", name) for name in held]
        return _single(w.Dropdown(options=pairs, value=value, layout=_WIDE))
    if kind is bool:
        return _single(w.Checkbox(value=bool(value), description="yes", indent=False))
    if kind in (int, float) and not optional:
        return _number(kind, info, value)
    if kind in (str, Path, int, float):
        text = w.Text(value="" if value is None else str(value), layout=_WIDE, continuous_update=False)
        return _single(text, lambda: text.value.strip() or (None if optional else ""))
    return Field(w.HTML(escape(cell_text(value))), lambda: value, (), value)


def _single(widget: Any, read: Callable[[], Any] | None = None) -> Field:
    read = read or (lambda: widget.value)
    return Field(widget, read, [widget], read())


def _lines(value: Any) -> Field:
    """Names one a line, or ``name = share``; a name without a share has 1."""
    import ipywidgets as w

    pairs = isinstance(value, Mapping)
    text = [f"{name} = {share}" for name, share in value.items()] if pairs else list(map(str, value))
    hint = "one a line, with its share: name = 2" if pairs else "one a line"
    area = w.Textarea("\n".join(text), rows=2, placeholder=hint, layout=_WIDE, continuous_update=False)

    def read() -> Any:
        lines = [line.strip() for line in area.value.splitlines() if line.strip()]
        parted = [(line + " = 1").split(" = ")[:2] for line in lines]
        return {name.strip(): share for name, share in parted} if pairs else tuple(lines)

    return _single(area, read)


def _number(kind: type, info: FieldInfo, value: Any) -> Field:
    import ipywidgets as w

    sides = {"ge": "min", "gt": "min", "le": "max", "lt": "max"}
    bounds = ((side, getattr(m, name, None)) for name, side in sides.items() for m in info.metadata)
    limits = {side: bound for side, bound in bounds if bound is not None}
    if kind is float and limits == {"min": 0, "max": 1}:
        widget, box = _slider(100 * value, "%")
        return Field(widget, lambda: round(box.value / 100, 6), [box], round(box.value / 100, 6))
    if kind is int and len(limits) == 2 and limits["max"] - limits["min"] <= _SLIDER_STEPS:
        widget, box = _slider(value, whole=True, **limits)
        return Field(widget, lambda: box.value, [box], box.value)
    return _single((w.FloatText if kind is float else w.IntText)(value=value, layout=_WIDE))


def _slider(
    value: float, unit: str = "", *, name: str = "", whole: bool = False, min: float = 0, max: float = 100
) -> Any:
    """A slider beside a box, and that box, which is what counts: what is typed out of range stays, for the config to refuse."""
    import ipywidgets as w

    def within(number: float) -> float:
        return sorted((min, number, max))[1]

    bar, typed = (w.IntSlider, w.IntText) if whole else (w.FloatSlider, w.FloatText)
    style, narrow = {"description_width": "110px" if name else "0"}, {"width": "76px"}
    slider = bar(within(value), min=min, max=max, step=1, readout=False, description=name, style=style)
    slider.layout = w.Layout(flex="1 1 0", min_width="60px")
    box = typed(value if whole else round(value, 4), layout=narrow)

    def moved(change: Any) -> None:
        if within(box.value) != change["new"]:  # else it was the box that moved it
            box.value = change["new"]

    slider.observe(moved, names="value")
    box.observe(lambda change: setattr(slider, "value", within(change["new"])), names="value")
    return _box(w.HBox, [slider, box, w.Label(unit, layout={"width": "18px"})], **_WIDE), box


def _shares(value: Mapping[str, float]) -> Field:
    """Sliders in proportion: what is read is the part that each has of their sum."""
    import ipywidgets as w

    rows = {name: _slider(100 * share, name=name.replace("_", " ")) for name, share in value.items()}
    boxes, told = {name: box for name, (_, box) in rows.items()}, w.HTML()

    def read() -> dict[str, float]:
        total = sum(box.value for box in boxes.values()) or 1.0
        return {name: box.value / total for name, box in boxes.items()}

    def tell(*_: object) -> None:
        told.value = "so: " + ", ".join(f"{escape(name)} {share:.0%}" for name, share in read().items())

    for box in boxes.values():
        box.observe(tell, names="value")
    tell()
    return Field(_box(w.VBox, [*(row for row, _ in rows.values()), told]), read, list(boxes.values()), read())


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
