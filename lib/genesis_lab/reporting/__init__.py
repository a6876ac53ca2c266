"""How it looks: charts, tables, controls, progress, chat bubbles, report. Draws plain data, computes nothing."""

from genesis_lab.reporting.figures import show

__all__ = ["show"]
