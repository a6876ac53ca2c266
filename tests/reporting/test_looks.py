"""What is shown can be read everywhere: without style sheets, on dark, on a phone, in Spanish; and says no more."""

from __future__ import annotations

import base64
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from genesis_lab.domains import get_domain
from genesis_lab.errors import InvalidInput
from genesis_lab.reporting import html, style
from genesis_lab.reporting.html import Html, NotMeasured
from genesis_lab.reporting.page import Page, Section, page_html
from genesis_lab.reporting.story import overall
from genesis_lab.reporting.views import shares, view
from genesis_lab.yamls import read_yaml

# What JupyterLab 4.6 leaves of an output that it does not trust: `allowedTags`, `allowedAttributes`, `allowedStyles`
TAGS = {
    "a",
    "abbr",
    "b",
    "br",
    "caption",
    "code",
    "details",
    "div",
    "header",
    "i",
    "li",
    "ol",
    "p",
    "pre",
    "section",
    "small",
    "span",
    "summary",
    "table",
    "tbody",
    "td",
    "th",
    "thead",
    "tr",
    "ul",
}
ATTRIBUTES = {"class", "dir", "lang", "style", "title", "translate"}
OF_TAG = {
    "a": {"href"},
    "caption": {"align"},
    "div": {"align"},
    "table": {"width"},
    "td": {"align", "colspan"},
    "th": {"align"},
}
PROPERTIES = {
    "background-color",
    "border",
    "border-radius",
    "color",
    "display",
    "flex-grow",
    "flex-wrap",
    "font-size",
    "gap",
    "margin",
    "max-width",
    "min-width",
    "opacity",
    "overflow-wrap",
    "padding",
    "text-align",
    "white-space",
}
NO_STYLE_NEEDED = {"data-h"}
"""Attributes that only the page's own style sheet uses."""

TURNS = [{"speaker": "customer", "text": "I'm buying"}, {"speaker": "agent", "text": "Buenas"}]
PIECES = {
    "table": html.table(
        [{"": "PASS", "gate": "label_fidelity", "label": "OK", "n": 3, "why": NotMeasured("no pool")}] * 2,
        caption="Gates",
    ),
    "cards": html.key_figures(
        {"verdict": ("PASS", "13 of 13 gates hold"), "worth": ("6.9", "real"), "a": NotMeasured("b")}
    ),
    "chat": html.chat([{"intent": "x", "language": "en", "turns": TURNS}], get_domain("conversations").facets),
    "utterances": html.chat(
        [{"intent": "x", "language": "en", "turns": TURNS[:1]}], get_domain("conversations").facets
    ),
    "answers": html.side_by_side([["a: 1", "b: 2"]], ["teacher", "student"], above="a question"),
    "steps": html.bullets(["Generate more. → genesis plan x.yaml", "Look. → #records"], ordered=True),
}


class Sanitised(HTMLParser):
    """Collects what would be taken away."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.lost: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in TAGS:
            self.lost.append(tag)
        for name, value in attrs:
            if name not in ATTRIBUTES | OF_TAG.get(tag, set()) | NO_STYLE_NEEDED:
                self.lost.append(f"{tag} {name}")
            for rule in (value or "").split(";") if name == "style" else ():
                of, _, to = rule.partition(":")
                if of not in PROPERTIES or "var(" in to or "calc(" in to:
                    self.lost.append(rule)


@pytest.mark.parametrize("name", list(PIECES))
def test_nothing_of_it_is_taken_away_before_a_notebook_is_run(name: str) -> None:
    assert not Sanitised(PIECES[name].html).lost


def test_without_any_style_rows_cards_and_speakers_still_stand_apart() -> None:
    blocks = {
        name: re.split(r"</?(?:div|p|tr|td|th|li|br|caption|header|section|pre|table)\b[^>]*>", piece.html)
        for name, piece in PIECES.items()
    }
    said = {name: [re.sub("<[^>]*>", "", block).strip() for block in found] for name, found in blocks.items()}
    assert {"verdict", "PASS", "13 of 13 gates hold", "6.9"} <= set(said["cards"])
    assert {"Customer:", "I&#x27;m buying", "Agent:", "Buenas"} <= set(said["chat"])
    assert 'align="right">3<' in PIECES["table"].html and '<div align="left">' in PIECES["table"].html
    assert ">OK<" in PIECES["table"].html and "<b style" in PIECES["table"].html, "a label is no outcome of a check"
    assert "labels that fit" in said["table"] and 'title="share of records' in PIECES["table"].html


def test_a_table_leaves_out_a_column_in_which_nothing_stands() -> None:
    found = html.table([{"gate": "a", "what to do": ""}, {"gate": "b", "what to do": ""}])
    assert "what to do" not in found.html
    assert "what to do" in html.table([{"gate": "a", "what to do": ""}, {"gate": "b", "what to do": "mend it"}]).html


def luminance(colour: str) -> float:
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a: str, b: str) -> float:
    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def over(colour: str, paper: str) -> str:
    """A colour with its transparency (``#rrggbbaa``) on paper."""
    share = int(colour[7:9], 16) / 255
    mixed = (round(share * int(colour[i : i + 2], 16) + (1 - share) * int(paper[i : i + 2], 16)) for i in (1, 3, 5))
    return "#" + "".join(f"{part:02x}" for part in mixed)


def themes() -> dict[str, dict[str, str]]:
    """The colours of the page by the names of JupyterLab's, in light and in dark."""
    folder = Path(style.__file__).with_name("templates")
    light = dict(re.findall(r"var\((--jp-[\w-]+),(#\w{6})\)", (folder / "notebook.css").read_text()))
    dark = dict(re.findall(r"(--jp-[\w-]+): (#\w{6})", (folder / "report.css").read_text()))
    assert light.keys() == dark.keys()
    return {"light": light, "dark": dark}


def pairs() -> dict[str, tuple[str, str]]:
    """What is written on what."""
    found = {f"badge {word}": tuple(re.findall(r"#\w{6}", look)[::-1]) for word, look in style.BADGES.items()}
    found |= {f"on {colour}": (style.on(colour), colour) for colour in sorted({*style.SERIES, *style.MEANING.values()})}
    found["charts before they are trusted, light"] = (style.MUTED, "#ffffff")
    for name, of in themes().items():
        ink, muted, link = (of[f"--jp-{part}"] for part in ("ui-font-color1", "ui-font-color2", "content-link-color"))
        paper, shade = of["--jp-layout-color1"], of["--jp-layout-color2"]
        found |= {
            f"{name}: text": (ink, paper),
            f"{name}: caption": (muted, paper),
            f"{name}: link": (link, paper),
            f"{name}: command": (ink, shade),
        }
        for who, look in (("customer", style.THEIRS), ("agent", style.OURS)):
            found[f"{name}: {who}"] = (ink, over(re.findall(r"#\w{8}", look)[0], paper))
    for name, (ink, paper) in {
        "JupyterLab light": ("#212121", "#ffffff"),
        "JupyterLab dark": ("#e0e0e0", "#111111"),
    }.items():
        for who, look in (("customer", style.THEIRS), ("agent", style.OURS)):
            found[f"{name}: {who}"] = (ink, over(re.findall(r"#\w{8}", look)[0], paper))
    return found  # type: ignore[return-value]


@pytest.mark.parametrize("name", list(pairs()))
def test_contrast_is_at_least_four_and_a_half_in_light_and_in_dark(name: str) -> None:
    assert contrast(*pairs()[name]) >= 4.5, f"{name}: {contrast(*pairs()[name]):.2f}"


def test_languages_and_moods_have_no_colour_of_a_verdict() -> None:
    verdicts = {re.findall(r"#\w{6}", look)[0] for look in style.BADGES.values()}
    assert len(verdicts) == 3 and not verdicts & {*style.SERIES, *style.MEANING.values()}


def fit(name: str, severity: str) -> dict[str, Any]:
    return {
        "attribute": name,
        "severity": severity,
        "n": 1540,
        "target": {"a": 0.5, "b": 0.5},
        "observed": {"a": 770, "b": 770},
        "intervals": {"a": (0.4, 0.6), "b": (0.4, 0.6)},
    }


def test_where_all_is_well_one_sentence_says_it_and_a_picture_shows_only_what_is_not() -> None:
    assert (
        shares(dict.fromkeys(map(str, range(77)), 20), "intent", unit="utterances")
        == "Intent: 77 of them, 20 utterances each (n = 1,540)."
    )
    well = view("bias", "targets", {"fits": [fit("language", "none"), fit("mood", "none")]})
    assert well == ["As planned, as far as can be told: language, mood (n = 1,540)."]
    said, chart = view("bias", "targets", {"fits": [fit("language", "none"), fit("mood", "high")]})
    assert "mood" not in said and chart.layout.title.text == "Mood: high deviation from its target (n = 1,540)"
    pair = {
        "attributes": ["a", "b"],
        "within": None,
        "severity": "none",
        "n": 99,
        "v": {"estimate": 0.04, "low": 0.0, "high": 0.1},
    }
    assert "more than chance" in view("bias", "associations", {"associations": [pair]})
    assert hasattr(view("bias", "associations", {"associations": [pair | {"severity": "low"}]}), "layout")
    counted = {"card": {"failed": 0, "n": 90}, "email": {"failed": 0, "n": 90}}
    assert (
        view("quality", "personal data", {"personal_data": counted})
        == "No personal data and no copies: card, email (n = 90)."
    )
    counted["card"]["failed"] = 2
    assert "turns with it" in view("quality", "personal data", {"personal_data": counted}).text


def test_labels_with_under_five_messages_are_not_ranked() -> None:
    def row(label: str, n: int) -> dict[str, Any]:
        return {"label": label, "recall": {"estimate": 0.2, "low": 0.0, "high": 0.6, "n": n}}

    exam = {"chosen": "x", "reference": None, "evaluation": {"per_label": [row("rare", 4), row("frequent", 7)]}}
    assert list(view("training", "hardest", exam).data[0].y) == ["frequent"]
    opens = view("training", "hardest", exam | {"evaluation": exam["evaluation"] | {"name": "held out"}})
    assert opens.layout.meta["where"] == {"label": ["{y}"], "right": ["no"], "tested on": ["{name}"]}
    assert opens.data[0].name == "held out"
    exam["evaluation"]["per_label"].pop()
    assert "no label has 5 messages" in str(view("training", "hardest", exam))


@pytest.mark.parametrize(
    ("reports", "word", "because"),
    [
        ({}, "PASS", ""),
        ({"bias": {"severity": "low"}}, "WARN", "imbalance is low"),
        ({"bias": {"severity": "high"}, "teaching": {"audit": {"kinds": {"x": 2}}}}, "FAIL", "imbalance is high"),
        ({"export": {"passed": False}}, "FAIL", "exported"),
    ],
)
def test_the_one_verdict_is_at_most_as_good_as_its_weakest_part(
    reports: dict[str, Any], word: str, because: str
) -> None:
    found = overall({"verdict": {"verdict": "PASS", "sentence": "PASS."}, **reports})
    assert found[0] == word and because in found[1] and found[1].startswith(f"The verdict is {word}")


def test_the_page_weighs_under_two_megabytes_and_has_plotly_whole_in_it() -> None:
    from plotly.offline import get_plotlyjs

    text = page_html(Page(title="x", date="2026-12-01", subtitle="y"))
    assert len(text.encode()) < 1_900_000 and "y · 2026-12-01" in text
    packed = re.search(r'id="plotly">(.*?)</script>', text, re.DOTALL)
    assert packed and "<" not in packed[1]
    assert zlib.decompress(base64.b85decode(packed[1].replace(",", "<"))).decode() == get_plotlyjs()


def test_each_spanish_text_has_a_place_for_everything_that_differs() -> None:
    texts = read_yaml(Path(style.__file__).with_name("templates") / "es.yaml")
    assert len(texts) > 300 and not [one for one, to in texts.items() if one.count("{}") != to.count("{}")]
    with pytest.raises(InvalidInput, match="A page is written in en or es, got language 'fr'"):
        page_html(Page(title="x", language="fr"))


def test_a_page_in_spanish_leaves_what_customers_wrote_as_it_is() -> None:
    chat = html.chat([{"intent": "verdict", "language": "en", "turns": TURNS}])
    parts = [
        html.bullets(["Nothing stands out."]),
        chat,
        Html('<p title="accuracy">accuracy</p>'),
        "1,540 conversations",
    ]
    text = page_html(
        Page(
            title="Dataset report: demo",
            language="es",
            status="PASS",
            summary="The verdict is PASS.",
            sections=[Section("What to do next", parts)],
            figures={"worth": ("6.9", "x")},
        )
    )
    assert '<html lang="es">' in text and "Informe del conjunto de datos: demo" in text and "Qué hacer ahora" in text
    assert '<p title="exactitud">exactitud</p>' in text and "1\N{NARROW NO-BREAK SPACE}540 conversaciones" in text
    assert "I&#x27;m buying" in text and "The verdict" not in text
