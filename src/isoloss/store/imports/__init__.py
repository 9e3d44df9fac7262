"""Numbers that others measured, filed in the same store."""

from isoloss.store.imports.filing import ImportReport
from isoloss.store.imports.identical import identical_results
from isoloss.store.imports.lm_eval_results import import_lm_eval
from isoloss.store.imports.logs import put_training_log
from isoloss.store.imports.tables import import_table
from isoloss.store.imports.training_logs import read_training_log

__all__ = [
    "ImportReport",
    "identical_results",
    "import_lm_eval",
    "import_table",
    "put_training_log",
    "read_training_log",
]
