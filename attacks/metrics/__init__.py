"""What an attack achieved, in numbers: ranking, label and perturbation metrics (docs/metrics.md).

Every metric comes one number a row, NaN where it is undefined; `mean_defined` is the average that is reported.
Rankings break ties by the lower label (`ranking.ranked_labels`), and `ranking.tied_rows` counts how often that mattered.
"""

from attacks.metrics.average import Average, mean_defined
from attacks.metrics.labels import (
    area_under_roc,
    average_precision,
    hamming,
    instance_f1,
    kendall_tau_b,
    label_average_precision,
    label_f1,
    micro_f1,
    ranking_loss,
    ranking_targets,
)
from attacks.metrics.perturbation import Norm, average_perturbation, norms, rmsd, success_rate, success_within
from attacks.metrics.ranking import (
    average_precision_at_k,
    labels_pushed_out,
    map_at_k,
    ndcg_at_k,
    precision_at_k,
    ranked_labels,
    tied_rows,
    top_k_accuracy,
)
from attacks.metrics.summary import Attacked, Change, Summary, summarise

__all__ = [
    "Attacked",
    "Average",
    "Change",
    "Norm",
    "Summary",
    "area_under_roc",
    "average_perturbation",
    "average_precision",
    "average_precision_at_k",
    "hamming",
    "instance_f1",
    "kendall_tau_b",
    "label_average_precision",
    "label_f1",
    "labels_pushed_out",
    "map_at_k",
    "mean_defined",
    "micro_f1",
    "ndcg_at_k",
    "norms",
    "precision_at_k",
    "ranked_labels",
    "ranking_loss",
    "ranking_targets",
    "rmsd",
    "success_rate",
    "success_within",
    "summarise",
    "tied_rows",
    "top_k_accuracy",
]
