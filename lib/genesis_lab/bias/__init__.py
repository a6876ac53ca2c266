"""Bias of a set of conversations: targets, coverage, associations, who appears, and the plan that mends it."""

from genesis_lab.bias.check import check_bias
from genesis_lab.bias.follow_up import follow_up_plan, follow_up_plans, write_follow_up
from genesis_lab.bias.report import (
    Addition,
    Appearance,
    Association,
    BiasReport,
    Cell,
    Coverage,
    Finding,
    Fit,
    Thresholds,
)

__all__ = [
    "Addition",
    "Appearance",
    "Association",
    "BiasReport",
    "Cell",
    "Coverage",
    "Finding",
    "Fit",
    "Thresholds",
    "check_bias",
    "follow_up_plan",
    "follow_up_plans",
    "write_follow_up",
]
