"""Settings from `.env`: found from the project root, whatever the working directory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import genesis_lab

PROGRAM = """
import json
from genesis_lab.settings import found_in, get_settings, redact
from genesis_lab.files import output_root
token = get_settings().hf_token
print(json.dumps([str(output_root()), str(token and token.get_secret_value()), get_settings().workers,
                  found_in("a hf_fake-token-of-a-test z"), redact("a hf_fake-token-of-a-test z")]))
"""


@pytest.mark.parametrize("place", ["", "notebooks", "notebooks/deep", "elsewhere"])
def test_env_file_of_the_project_is_read_and_its_secrets_known_from_every_folder(tmp_path, place):
    project = tmp_path / "project"
    copy = project / "lib" / "genesis_lab"
    shutil.copytree(Path(genesis_lab.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in ("notebooks/deep", "params", "elsewhere"):
        (project / folder).mkdir(parents=True)
    (project / ".env").write_text(
        "GENESIS_HF_TOKEN=hf_fake-token-of-a-test\nGENESIS_WORKERS=3\nGENESIS_OUTPUT_ROOT=out\n"
    )
    (project / "elsewhere" / ".env").write_text("GENESIS_WORKERS=5\n")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GENESIS_")}
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=project / place,
        env=kept | {"PYTHONPATH": str(copy.parent)},
        capture_output=True,
        text=True,
    )
    assert json.loads(said.stdout or said.stderr) == [
        str(project / "out"),
        "hf_fake-token-of-a-test",
        3,
        ["GENESIS_HF_TOKEN"],
        "a [GENESIS_HF_TOKEN] z",
    ]
