"""What comes from data is shown as it is, never run."""

import pandas as pd

from genesis_lab.domains import get_domain
from genesis_lab.reporting import html as tables
from genesis_lab.stats import Interval

SCRIPT = "<script>alert('x')</script>"


def test_a_table_escapes_cells_headings_and_caption() -> None:
    html = tables.table(pd.DataFrame({SCRIPT: [SCRIPT]}), caption=SCRIPT).html
    assert "<script" not in html
    assert html.count("&lt;script&gt;") == 3


def test_chat_bubbles_escape_every_part_of_a_conversation() -> None:
    turn = {"speaker": SCRIPT, "text": SCRIPT + "\x00\u202e"}
    record = {"intent": SCRIPT, "language": '"><img>', "sentiment": SCRIPT, "turns": [turn]}
    html = tables.chat([record], get_domain("conversations").facets).html
    assert html.count("&lt;script&gt;") == 2  # label and text of an utterance
    assert "<script" not in html and "<img" not in html
    assert "\x00" not in html and "\u202e" not in html
    html = tables.chat([record | {"turns": [turn, turn]}], get_domain("conversations").facets).html
    assert html.count("&lt;script&gt;") == 6 and "<script" not in html and "<img" not in html


def test_chat_bubbles_name_the_speakers_in_the_conversation_s_language() -> None:
    turns = [{"speaker": "customer", "text": "Hola"}, {"speaker": "agent", "text": "Buenas"}]
    html = tables.chat([{"intent": "x", "language": "es", "turns": turns}]).html
    assert "Cliente" in html and "Agente" in html and 'lang="es"' in html


def test_chat_bubbles_survive_a_broken_record() -> None:
    broken = [{}, {"turns": None, "intent": None}, {"turns": [{}]}]
    html = tables.chat(broken).html
    assert html.count("<section") == 2 and html.count("<tr>") == 2


def test_utterances_are_one_line_each_with_their_label() -> None:
    def said(i: int, *more: dict) -> dict:
        return {
            "intent": "card_arrival",
            "language": "en",
            "turns": [{"speaker": "customer", "text": f"where is it <{i}>"}, *more],
        }

    html = tables.chat((said(i) for i in range(100)), get_domain("conversations").facets).html
    assert html.count("<tr>") == 1 + 20 and "<section" not in html
    assert html.count(">card arrival<") == 20 and "where is it &lt;7&gt;" in html
    both = tables.chat(
        [said(0), said(1, {"speaker": "agent", "text": "Soon."})], get_domain("conversations").facets
    ).html
    assert both.count("<section") == 1 and "Agent:" in both and "where is it &lt;0&gt;" in both


def test_what_is_not_measured_says_why() -> None:
    html = tables.table([{"score": 0.5}, {"score": tables.NotMeasured("no reference")}]).html
    assert "not measured: no reference" in html


def test_numbers_are_shown_with_their_interval() -> None:
    assert tables.interval_text({"estimate": 0.81234, "low": 0.78, "high": 0.84}) == "0.81 [0.78–0.84]"
    assert tables.cell_text(Interval(0.81234, 0.78, 0.84, 100)) == "0.81 [0.78–0.84]"
    assert tables.interval_text(None) == "–"
    row = {"score": {"estimate": 0.5, "low": 0.4, "high": 0.6, "n": 9}, "of": 9}
    shown = tables.table([row, {}], formats={"score": ".0%"})
    assert (
        "50% [40%–60%]  9" in shown.text and '<td align="right">' in shown.html and "–" in shown.text.splitlines()[-1]
    )


def test_a_long_table_says_how_much_it_leaves_out() -> None:
    found = tables.table([{"n": i} for i in range(60)], limit=50)
    assert "and 10 more" in found.html and "and 10 more" in found.text
