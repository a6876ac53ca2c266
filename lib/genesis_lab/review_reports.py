"""Pages about what users say: the weekly report, and what closing the loop brought."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from genesis_lab import __version__
from genesis_lab.reporting.page import Page
from genesis_lab.reporting.views import views
from genesis_lab.review.store import Store, audit_faults, audit_head
from genesis_lab.settings import get_settings


def review_page(
    store: Store,
    found: Mapping[str, Any],
    *,
    title: str,
    figures: Mapping[str, object],
    summary: str = "",
    language: str = "",
) -> Page:
    """The page of what `found` holds, kind of report to report, in this order, `figures` as cards on top, in a
    language (default: ``GENESIS_LANGUAGE``); its footer holds the audit chain's head."""
    sections = [section for kind, report in found.items() for section in views(kind, report)]
    head, today = audit_head(store), datetime.date.today().isoformat()
    chain = f"{head['number']}:{head['hash']}" if head["number"] else "empty: nobody has decided anything yet"
    checked = "; ".join(audit_faults(store)) or "whole: every entry is what was written"
    made = {
        "review store": store.address,
        "head of the audit chain": chain,
        "audit chain": checked,
        "made with": f"Genesis Lab {__version__}",
    }
    told = language or get_settings().language
    return Page(title, date=today, summary=summary, figures=figures, sections=sections, provenance=made, language=told)
