"""Charts. Each takes plain data and returns a plotly figure for `reporting.show` and the report.

Titles say what is seen; `title=` replaces the default one. Shares and scores are in [0, 1].
"""

from genesis_lab.reporting.charts.comparison import compare_distributions, compare_scores
from genesis_lab.reporting.charts.composition import (
    association_heatmap,
    composition,
    distribution,
    intent_distribution,
    target_vs_observed,
)
from genesis_lab.reporting.charts.prompts import prompt_race
from genesis_lab.reporting.charts.quality import (
    calibration,
    confusion_heatmap,
    quality_radar,
    score_list,
)
from genesis_lab.reporting.charts.worth import Mark, k_shot_curve, learning_curve

__all__ = [
    "Mark",
    "association_heatmap",
    "calibration",
    "compare_distributions",
    "compare_scores",
    "composition",
    "confusion_heatmap",
    "distribution",
    "intent_distribution",
    "k_shot_curve",
    "learning_curve",
    "prompt_race",
    "quality_radar",
    "score_list",
    "target_vs_observed",
]
