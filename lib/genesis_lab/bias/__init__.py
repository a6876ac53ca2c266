"""Bias of a dataset: targets, coverage, associations, who appears, and the plan that mends it."""

from genesis_lab.bias.check import check_bias
from genesis_lab.bias.follow_up import follow_up_plan, write_follow_up
from genesis_lab.bias.measures import Thresholds

__all__ = ["Thresholds", "check_bias", "follow_up_plan", "write_follow_up"]
