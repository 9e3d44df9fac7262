"""One import of the real Pythia results, shared by all tests that only read it."""

import pytest

from isoloss.store import Store
from isoloss.store.imports import ImportReport, import_lm_eval
from shared_data import SHARED


@pytest.fixture(scope="session")
def imported(tmp_path_factory) -> tuple[Store, ImportReport]:
    store = Store.create(tmp_path_factory.mktemp("pythia"))
    return store, import_lm_eval(SHARED / "pythia-evals", store)


@pytest.fixture(scope="session")
def pythia(imported) -> Store:
    return imported[0]
