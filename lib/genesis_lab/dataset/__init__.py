"""A dataset is a folder that ``datasets.load_dataset(folder)`` opens as it is: read, write, split, import, export."""

from genesis_lab.dataset.exporting import export_dataset
from genesis_lab.dataset.folder import (
    Dataset,
    dataset_names,
    open_dataset,
    open_filled,
    read_reports,
    remembered,
    write_report,
)
from genesis_lab.dataset.importing import import_dataset
from genesis_lab.dataset.writing import DatasetWriter, assign_splits

__all__ = [
    "Dataset",
    "DatasetWriter",
    "assign_splits",
    "dataset_names",
    "export_dataset",
    "import_dataset",
    "open_dataset",
    "open_filled",
    "read_reports",
    "remembered",
    "write_report",
]
