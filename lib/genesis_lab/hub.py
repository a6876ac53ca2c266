"""The Hugging Face hub: is it within reach (its libraries would retry for a minute), and pushing to it."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from genesis_lab.errors import InvalidInput, Unavailable
from genesis_lab.settings import get_settings

TIMEOUT_S = 5.0


@lru_cache
def hub_reachable() -> bool:
    """Whether the hub answers at all; False when ``HF_HUB_OFFLINE`` is set. Asked once per process."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]  # documented, not marked as exported

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT_S)
    except Exception:  # the session is of httpx or of requests, by version, each with its own tree of errors
        return False
    return True


def push_folder(
    folder: Path,
    repository: str,
    kind: Literal["dataset", "model"],
    *,
    allow: list[str],
    message: str,
    replaces: list[str] | None = None,
    private: bool = True,
) -> str:
    """Upload the files of `folder` that match `allow`; returns the repository's address.

    `replaces`: patterns of files to delete there that are not among the new ones; `private`: of a new repository.
    """
    from huggingface_hub import HfApi

    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repository):
        raise InvalidInput(f"{repository!r} is no repository of the Hugging Face hub: expected owner/name.")
    token = get_settings().hf_token
    api = HfApi(token=token.get_secret_value() if token else None)
    try:
        api.create_repo(repository, repo_type=kind, private=private, exist_ok=True)
        files: dict[str, Any] = {"allow_patterns": allow, "delete_patterns": replaces}
        api.upload_folder(repo_id=repository, folder_path=folder, repo_type=kind, commit_message=message, **files)
    except Exception as error:  # httpx, requests and the hub have each their own tree of errors
        said = (" ".join(str(error).split()) or type(error).__name__)[:200].rstrip(".")
        advice = "can it be reached, and is GENESIS_HF_TOKEN a token with write access to it?"
        raise Unavailable(f"The Hugging Face hub did not take {repository} ({said}): {advice}") from None
    return f"{api.endpoint}/{'datasets/' if kind == 'dataset' else ''}{repository}"
