"""Settings from the environment (and ``.env``): its only reader. Secrets live here, never in what is written."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource, SettingsConfigDict

_SHORTEST = 8
"""Characters of a secret's value that is looked for: shorter ones would be found by chance."""
_NAME = re.compile(
    r"secret|passw(or)?d|passphrase|credential|bearer|(api|access|private|signing)_?key|(^|_)(auth_?)?token(_|$)",
    re.IGNORECASE,
)
_NOT_THE_SECRET = re.compile(r"_(file|path|dir|uri|url|name|id_file)$", re.IGNORECASE)
_CREDENTIALS = re.compile(r"""(://[^\s/"',@]+|@[^\s/@:"',]+:[^\s/@"',]+)@""")


def project_root() -> Path:
    """The checkout that holds ``notebooks/`` and ``params/``; the working directory when installed without one."""
    for start in (Path(__file__).resolve().parent, Path.cwd()):
        for folder in (start, *start.parents):
            if (folder / "notebooks").is_dir() and (folder / "params").is_dir():
                return folder
    return Path.cwd()


def env_file() -> Path:
    """The ``.env`` of the project: the same one from a terminal, a notebook and a test."""
    return project_root() / ".env"


class Settings(BaseSettings):
    """Each field is read from ``GENESIS_<NAME>``, for example ``GENESIS_OUTPUT_ROOT``."""

    model_config = SettingsConfigDict(env_prefix="GENESIS_", extra="ignore")

    output_root: Path | None = Field(None, description="folder that runs write to (default: outputs/ of the checkout)")
    reference_dir: Path | None = Field(None, description="folder with real reference data, e.g. banking77/test.csv")
    embedder: str = Field(
        "",
        description="sentence-embedding model: hub id or folder (default: sentence-transformers/all-MiniLM-L6-v2; for "
        "more than English paraphrase-multilingual-MiniLM-L12-v2, 471 MB, Apache-2.0, where it can be had)",
    )
    mlflow_tracking_uri: str | None = Field(None, description="MLflow server (default: SQLite under the output root)")
    dask_address: str | None = Field(None, description="Dask scheduler, e.g. tcp://host:8786 (default: this machine)")
    language: str = Field("en", description="what forms are written in: en or es (a page's language is a parameter)")
    workers: int = Field(1, ge=1, description="processes for validation, bias and sweeps on this machine")
    aws_region: str | None = Field(None, description="AWS region of Bedrock and S3 (default: the AWS profile's)")
    aws_profile: str | None = Field(None, description="AWS profile (default: the standard AWS credential chain)")
    bedrock_endpoint_url: str | None = Field(None, description="another address for Bedrock, e.g. a VPC endpoint")
    bedrock_allow_global: bool = Field(False, description="allow global. inference profiles, which move data anywhere")
    batch_bucket: str | None = Field(None, description="S3 bucket[/prefix] of Bedrock batch jobs, in the same region")
    batch_role_arn: str | None = Field(None, description="ARN of the IAM role that batch jobs read and write S3 with")
    batch_min_records: int = Field(100, ge=1, description="quota: records that a batch job must have at least")
    batch_max_records: int = Field(50_000, ge=1, description="quota: records that a batch job may have")
    batch_max_bytes: int = Field(1_000_000_000, ge=1000, description="quota: bytes that a batch job's file may have")
    batch_poll_s: float = Field(30.0, gt=0, description="seconds between two looks at running batch jobs")
    aws_bearer_token_bedrock: SecretStr | None = Field(
        None, validation_alias="AWS_BEARER_TOKEN_BEDROCK", description="Bedrock API key, read by the AWS SDK itself"
    )
    openai_api_key: SecretStr | None = Field(None, description="key of an OpenAI-compatible server, if it needs one")
    openai_key_host: str | None = Field(None, description="host that the key is for (default: every https address)")
    hf_token: SecretStr | None = Field(None, description="Hugging Face token for push_to_hub")
    review_url: str | None = Field(
        None,
        description="review store: postgresql://user@host/database or a SQLite file (default: under the output root)",
    )
    review_password: SecretStr | None = Field(None, description="its password on PostgreSQL; PGPASSWORD works too")
    review_source_password: SecretStr | None = Field(None, description="of a PostgreSQL that conversations come from")
    review_secret: SecretStr | None = Field(
        None, description="key that sender ids are hashed with (default, on SQLite only: one made beside the store)"
    )
    review_name: str | None = Field(
        None,
        validation_alias=AliasChoices("GENESIS_REVIEW_NAME", "JUPYTERHUB_USER"),
        description="who sits here, as the review store notes it (default: the user of JupyterHub or of the machine)",
    )
    rasa_token: SecretStr | None = Field(None, description="token of a Rasa server (its --auth-token)")
    llama_cpp_dir: Path | None = Field(None, description="checkout of llama.cpp, for GGUF (default: fetched)")

    @field_validator("output_root", "reference_dir", "llama_cpp_dir")
    @classmethod
    def _from_the_project(cls, path: Path | None) -> Path | None:
        """The same folder from a terminal and a notebook, like every path in parameters."""
        return path and project_root() / path.expanduser()


@lru_cache
def get_settings() -> Settings:
    """The settings of this process, read once; ``get_settings.cache_clear()`` reads them again."""
    return Settings(_env_file=env_file())  # type: ignore[call-arg]  # an option of pydantic-settings, not a field


def looks_secret(name: str) -> bool:
    """Whether a name reads like a secret's: ``api_key``, ``hfToken``, ``AWS_SECRET_ACCESS_KEY``; not ``max_tokens``."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[-.\s]", "_", name)
    return bool(_NAME.search(snake)) and not _NOT_THE_SECRET.search(snake)


def secret_names(value: Any) -> Iterator[str]:
    """The keys anywhere in nested parameters that look like a secret's name."""
    if isinstance(value, Mapping):
        yield from (str(key) for key in value if looks_secret(str(key)))
        value = list(value.values())
    for inner in value if isinstance(value, list | tuple) else ():
        yield from secret_names(inner)


def credentials_in(text: str) -> bool:
    """Whether an address in `text` holds a password: ``https://me:secret@host``, ``openai:m@me:secret@host``."""
    return bool(_CREDENTIALS.search(text))


def found_in(text: str) -> list[str]:
    """Names of the known secrets whose value stands in `text`, as it is or as JSON writes it."""
    return [name for name, value in _known().items() if any(form in text for form in _forms(value))]


def redact(text: str) -> str:
    """`text` with every known secret value replaced by its name."""
    for name, value in _known().items():
        for form in _forms(value):
            text = text.replace(form, f"[{name}]")
    return text


def _known() -> dict[str, str]:
    """Name to value of the secrets in the environment and in ``.env``, as `Settings` would read them."""
    variables = {**DotEnvSettingsSource(Settings, env_file=env_file()).env_vars, **EnvSettingsSource(Settings).env_vars}
    return {name.upper(): v for name, v in variables.items() if v and len(v) >= _SHORTEST and looks_secret(name)}


def _forms(value: str) -> set[str]:
    """How a notebook file may write a value: printed, as a repr or in HTML, each as it is or escaped by JSON."""
    shown = {value, repr(value)[1:-1], html.escape(value)}
    return shown | {json.dumps(form, ensure_ascii=ascii)[1:-1] for form in shown for ascii in (True, False)}
