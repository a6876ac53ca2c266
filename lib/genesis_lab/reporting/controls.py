"""Forms: a pydantic config on the screen (``templates/form.js``), read back as a validated config."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError, create_model
from pydantic import Field as Declared

from genesis_lab.errors import GenesisError, InvalidInput, Taken, sentence
from genesis_lab.parameters import declared
from genesis_lab.reporting.frontend import answering, display, viewer
from genesis_lab.reporting.html import cell_text, escape, facts
from genesis_lab.reporting.wording import translated, translated_html
from genesis_lab.settings import get_settings

Model = TypeVar("Model", bound=BaseModel)
Preview = Callable[[Any], Mapping[str, object]]
Choices = Sequence[str] | Mapping[str, str]

_SLIDER_STEPS = 1_000
"""An integer range with more steps than this gets a number box alone: a slider could not hit a value."""
_RUN = "In JupyterLab: run this cell and all below. Elsewhere: run the cells below."


class Form(Generic[Model]):
    """A form on the screen. `value` is the config it stands for.

    Parameters are those of `form`; `fields` are what ``form.js`` draws, `entered` is what was chosen or typed, by name.
    """

    def __init__(
        self,
        config: Model,
        *,
        choices: Mapping[str, Choices] = {},
        hide: Iterable[str] = (),
        preview: Preview | None = None,
    ) -> None:
        self._config, self._preview = config, preview
        self.entered: dict[str, Any] = {}
        self.widget: Any = None
        """What is shown; None where nobody watches."""
        self.fields: dict[str, dict[str, Any]] = {
            name: {
                "name": name,
                "about": _says(schema.get("description", "")),
                **_field(schema, getattr(config, name), choices.get(name)),
            }
            for name, schema in type(config).model_json_schema()["properties"].items()
            if name not in {*hide} and schema.get("format") != "password"
        }

    @property
    def changed(self) -> dict[str, Any]:
        """What differs from the config that the form began with, as it was chosen or typed."""
        entered = {name: value for name, value in self.entered.items() if value != self.fields[name]["value"]}
        return {name: _read(self.fields[name], entered[name]) for name in self.fields if name in entered}

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

    def keep(self, before: Form[Model]) -> None:
        """Take over what was chosen in an earlier form, but for fields whose value in the config has changed since."""
        for name in before.changed.keys() & self.fields.keys():
            given, known = before.entered[name], [value for _, value in self.fields[name].get("options", ())]
            there = not known or all(one in known for one in (given if isinstance(given, list) else [given]))
            if there and getattr(before._config, name) == getattr(self._config, name):
                self.entered[name] = given

    def enter(self, name: str | None, value: Any = None) -> dict[str, Any]:
        """Take what is entered in a field (no name: all goes back to the parameters); what the front end shows then."""
        self.entered = self.entered | {name: value} if name else {}
        return self.tell()

    def tell(self) -> dict[str, Any]:
        """What the front end shows: the preview, or why there is none, and by which field, and ways out of that."""
        told, fault, ways = "", "", list[tuple[str, str, object]]()
        try:
            config: Any = self.value
            found = self._preview(config) if self._preview else {}
            shown = facts(found, caption="Before anything runs").page if found else ""
            told = translated_html(shown, get_settings().language)
        except (Exception, KeyboardInterrupt) as error:
            ours = str(error) if isinstance(error, GenesisError) else f"{type(error).__name__}: {error}"
            fault = re.split(r"\W", ours)[0]
            if isinstance(error, Taken) and {"dataset", "replace"} <= self.fields.keys():
                free = str(Path(config.dataset).with_name(error.free))
                ways = [(_says(f"Name it {error.free}"), "dataset", free), (_says("Replace it"), "replace", True)]
            told = f'<div role="alert" class="glf-alert"><b>{_says("Not yet:")}</b> {escape(ours)}</div>'
        state = {"entered": self.entered, "changed": [*self.changed], "told": told, "fault": fault, "ways": ways}
        if self.widget:
            self.widget.about = self.widget.about | {"state": state}
        return state

    def show(self, basics: Sequence[str] = (), button: str = "") -> None:
        """Show the form, these fields of it at once, with a button that runs the cells below."""
        more = len(self.fields) - len([name for name in basics if name in self.fields])
        words = {
            "reset": "reset to parameters",
            "changed": "changed in the form:",
            "wait": "calculating …",
            "run": _RUN,
            "see": "↑ see the sentence beside the form",
            "more": f"{more} more settings",
            "button": button,
        }
        says = {name: _says(text) for name, text in words.items()}
        about = {"fields": [*self.fields.values()], "basics": [*basics], "says": says}
        self.widget = answering("form", about, {"enter": self.enter})
        display(self.widget)
        self.tell()


def _says(text: str) -> str:
    return translated(text, get_settings().language)


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

    A number with bounds becomes a slider with a box (a box, where the range is wide), a `Literal` a dropdown, a set of
    names a list to choose from, shares that add up to 1 sliders in proportion, names and shares lines of text. Where
    nobody watches (see `frontend.viewer`) nothing is shown and `value` is `config` itself.

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
    watched = viewer() == "notebook"
    known = {name: found() if callable(found) else found for name, found in (choices or {}).items() if watched}
    shown: Form[Model] = Form(config, choices=known, hide=hide, preview=preview)
    if watched:
        key = (type(config).__qualname__, *type(config).model_fields)
        before, _LIVE[key] = _LIVE.get(key), shown
        if before:
            shown.keep(before)
        shown.show([*basics], button)
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


def _field(schema: Mapping[str, Any], value: Any, choices: Choices | None) -> dict[str, Any]:
    """By its JSON schema the `kind` of a field in ``form.js``, the `value` it begins with, and what its kind needs."""
    given = schema.get("anyOf", [schema])
    kinds = [one for one in given if one.get("type") != "null"]
    of, optional = kinds[0] if len(kinds) == 1 else {}, len(kinds) < len(given)
    kind, options = of.get("type"), of.get("enum") or ([of["const"]] if "const" in of else [])
    inner = of.get("items") or of.get("additionalProperties") or {}
    if kind == "array":
        if names := list(choices or inner.get("enum", ())):
            chosen = [name for name in names if name in set(map(str, value))]
            return {"kind": "several", "options": [(name, name) for name in names], "value": chosen}
        if inner.get("type") == "string":
            return {"kind": "lines", "value": "\n".join(map(str, value)), "hint": "one a line"}
    numbers = kind == "object" and all(isinstance(v, int | float) for v in value.values())
    if numbers and schema.get("default") and abs(sum(value.values()) - 1) < 1e-6:
        return {"kind": "shares", "unit": "", "value": {name: round(100 * share, 4) for name, share in value.items()}}
    if numbers and inner["type"] == "number":
        text = "\n".join(f"{name} = {share}" for name, share in value.items())
        return {"kind": "lines", "value": text, "hint": "one a line, with its share: name = 2", "pairs": True}
    if choices is not None or options:
        known = options if choices is None else choices
        told = known if isinstance(known, Mapping) else {}
        held = dict.fromkeys([*([None] if optional else []), *([] if value in known else [value]), *known])
        pairs = [(f"{name or '–'} · {told[name]}" if told.get(name) else name or "–", name) for name in held]
        return {"kind": "choice", "options": pairs, "value": value}
    if kind == "boolean":
        return {"kind": "check", "value": bool(value)}
    if kind in ("integer", "number") and not optional:
        low, high = (of.get(f"{end}imum", of.get(f"exclusive{end.title()}imum")) for end in ("min", "max"))
        if kind == "number" and (low, high) == (0, 1):
            return {"kind": "number", "min": 0, "max": 100, "unit": "%", "value": round(100 * value, 4)}
        few = kind == "integer" and low is not None and high is not None and high - low <= _SLIDER_STEPS
        return {"kind": "number", "value": value, **({"min": low, "max": high} if few else {})}
    if kind in ("string", "integer", "number"):
        return {"kind": "text", "value": "" if value is None else str(value), "optional": optional}
    return {"kind": "fixed", "value": cell_text(value)}


def _read(field: Mapping[str, Any], entered: Any) -> Any:
    """What was entered in a field, as its config takes it; what is no number stays, for the config to refuse."""
    if field["kind"] == "several":
        return tuple(entered)
    if field["kind"] == "text":
        return entered.strip() or (None if field["optional"] else "")
    if field["kind"] == "lines":
        lines = [line.strip() for line in entered.splitlines() if line.strip()]
        parted = [(line + " = 1").split(" = ")[:2] for line in lines]  # a name without a share has 1
        return {name.strip(): share for name, share in parted} if "pairs" in field else tuple(lines)
    if field["kind"] == "shares" and all(isinstance(part, int | float) for part in entered.values()):
        total = sum(entered.values()) or 1.0
        return {name: part / total for name, part in entered.items()}
    percent = field.get("unit") == "%" and isinstance(entered, int | float)
    return round(entered / 100, 6) if percent else entered
