"""The form of a student's answer as a Lark grammar for llguidance: one way to write it, texts of bounded length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

_LETTERS = "A-Za-zÁÉÍÓÚÜÑáéíóúüñãç"
_WORDS = rf"[{_LETTERS}0-9 ,.()%\/'-]"
_PRIORITY = 'priority: "High" | "Medium" | "Low"'


def text(shortest: int, longest: int) -> str:
    """A terminal: one plain YAML text on one line that begins with a letter and ends with a letter or a digit."""
    return rf"/[{_LETTERS}]{_WORDS}{{{shortest - 2},{longest - 2}}}[{_LETTERS}0-9.]/"


def requirements_grammar(lists: Mapping[str, str], fewest: int, most: int) -> str:
    """Grammar of role ``requirements``.

    Parameters
    ----------
    lists : name of each list and the letters of its ids.
    fewest, most : items of a list.
    """
    rules = [
        'start: "title: " title "\\ndescription: " description "\\n" ' + " ".join(lists),
        _PRIORITY,
        f"title: {text(10, 100)}",
        f"description: {text(100, 300)}",
        f"item: {text(20, 180)}",
    ]
    for name, prefix in lists.items():
        rules.append(f'{name}: "{name}:\\n" {_items(name, fewest, most)}')
        rules += [
            f'{name}_{i}: "- id: {prefix}{i:03d}\\n  description: " item "\\n  priority: " priority "\\n"'
            for i in range(1, most + 1)
        ]
    return "\n".join(rules) + "\n"


def vision_grammar(lists: Mapping[str, int], statuses: Sequence[str], places: Sequence[str]) -> str:
    """Grammar of role ``vision``.

    Parameters
    ----------
    lists : lists of the vision and the fewest entries of each; two more are allowed.
    statuses, places : what a review may say, and where it may put a requirement.
    """
    many = {name: f'"{name}:\\n" {" ".join(["entry"] * n)} (entry entry?)?' for name, n in lists.items()}
    rules = [
        'start: "```yaml VISION\\n" vision "```\\n```yaml REVIEW\\n" review "```\\n"',
        'vision: "product_name: " name "\\nproduct_summary: " sentence "\\n" target_users "value_proposition: " value "\\n"'
        ' key_capabilities non_goals success_metrics "last_updated: \\"" date "\\"\\n"',
        *(f"{name}: {rule}" for name, rule in many.items()),
        'review: "status: " status "\\nsummary: " summary "\\nrequirements_alignment:\\n" '
        + " ".join(f'"  {place}:" ids' for place in places)
        + ' "recommended_actions:\\n" entry entry entry? "narrative: " narrative "\\n"',
        'ids: " []\\n" | "\\n" id~1..18',
        'id: "  - " /(FR|NFR|C)00[1-6]/ "\\n"',
        f'entry: "- " {text(10, 180)} "\\n"',
        "status: " + " | ".join(f'"{status}"' for status in statuses),
        "date: /20[0-9][0-9]-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])/",
        f"name: {text(3, 90)}",
        f"sentence: {text(60, 280)}",
        f"value: {text(40, 240)}",
        f"summary: {text(30, 240)}",
        f"narrative: {text(130, 700)}",
    ]
    return "\n".join(rules) + "\n"


def _items(name: str, fewest: int, most: int) -> str:
    """Items 1 to `fewest` and then, one inside the other so that no number is skipped, up to `most`."""
    more = ""
    for i in range(most, fewest, -1):
        more = f" ({name}_{i}{more})?"
    return " ".join(f"{name}_{i}" for i in range(1, fewest + 1)) + more
