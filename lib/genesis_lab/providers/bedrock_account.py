"""The AWS side of Bedrock: session and clients, which id a model answers to here, and what its errors mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from genesis_lab import __version__
from genesis_lab.errors import (
    Fatal,
    InvalidInput,
    MissingDependency,
    ProviderError,
    QuotaExhausted,
    Rejected,
    Throttled,
    Transient,
    Unreachable,
)
from genesis_lab.providers.addresses import may_get_key
from genesis_lab.providers.models import GEOGRAPHY, base_model_id, model_info
from genesis_lab.settings import Settings, get_settings

_GEOGRAPHIES = {"us": ("us",), "us-gov": ("us-gov",), "eu": ("eu",), "ca": ("ca", "us"), "sa": ("sa", "us"),
                "ap-northeast": ("jp", "apac"), "ap-southeast": ("au", "apac"), "ap": ("apac",)}  # fmt: skip
"""Start of a region's name to prefixes of its profiles, nearest first."""

_SENTENCES = {
    "IncompleteSignature": "AWS can't read the signature: access key id and secret access key are probably swapped.",
    "UnrecognizedClientException": "AWS does not know this access key id: check AWS_ACCESS_KEY_ID or the profile.",
    "InvalidClientTokenId": "AWS does not know this access key id: check AWS_ACCESS_KEY_ID or the profile.",
    "InvalidSignatureException": "The secret access key does not belong to the access key id (or the clock is wrong).",
    "SignatureDoesNotMatch": "The secret access key does not belong to the access key id (or the clock is wrong).",
    "ExpiredTokenException": "The AWS session has expired: sign in again, then run the same again.",
    "ExpiredToken": "The AWS session has expired: sign in again, then run the same again.",
    "AccessDeniedException": "This AWS identity may not call {model}: allow bedrock:InvokeModel on it, and request access to the model.",
    "ResourceNotFoundException": "{model} is not there: it has been retired, or is not offered in this region.",
}
_TRANSIENT = {"ServiceUnavailableException", "InternalServerException", "ModelTimeoutException", "ModelErrorException",
              "ModelNotReadyException", "InternalFailure", "ServiceUnavailable", "RequestTimeout"}  # fmt: skip


@dataclass(frozen=True)
class Target:
    """What to call for a model: `call_id` is the id, profile or ARN to pass, `model_id` the foundation model behind it."""

    call_id: str
    model_id: str
    lifecycle: str | None = None

    @property
    def regional(self) -> bool:
        """The data stays in a geography or region."""
        return not self.call_id.rsplit("/", 1)[-1].startswith("global.")


class Account:
    """Clients of one account and region, made when they are first needed; they are safe to share between threads.

    Parameters
    ----------
    connections : calls in flight at once.
    read_timeout_s : seconds that an answer may take.
    """

    def __init__(
        self, settings: Settings | None = None, *, connections: int = 32, read_timeout_s: float = 300.0
    ) -> None:
        self.settings = settings or get_settings()
        self._connections, self._read_timeout_s = connections, read_timeout_s
        self._session: Any = None

    @property
    def session(self) -> Any:
        if self._session is None:
            try:
                import boto3
                import botocore.exceptions
            except ImportError:
                raise MissingDependency("boto3", "Amazon Bedrock", "pip install boto3") from None
            try:
                self._session = boto3.Session(
                    profile_name=self.settings.aws_profile, region_name=self.settings.aws_region
                )
            except botocore.exceptions.ProfileNotFound as error:
                raise InvalidInput(
                    f"{error}: set GENESIS_AWS_PROFILE to one of `aws configure list-profiles`."
                ) from None
        return self._session

    @property
    def region(self) -> str:
        region = self.session.region_name
        if not region:
            raise InvalidInput(
                "No AWS region: set GENESIS_AWS_REGION (or AWS_DEFAULT_REGION), for example to us-east-1."
            )
        return str(region)

    def client(self, service: str, *, endpoint_url: str | None = None, attempts: int = 1) -> Any:
        """A client that tries each call `attempts` times, by itself only once. Raises `InvalidInput` without a region."""
        from botocore.config import Config

        config = Config(
            retries={"mode": "standard", "total_max_attempts": attempts},
            max_pool_connections=self._connections,
            read_timeout=self._read_timeout_s,
            connect_timeout=10,
            tcp_keepalive=True,
            # Short and fixed: boto3 builds its own anew for every call, which is a tenth of a call's CPU time.
            user_agent=f"genesis-lab/{__version__}",
        )
        url = endpoint_url or (None if service in ("s3", "iam") else self.settings.bedrock_endpoint_url)
        if url and self.settings.aws_bearer_token_bedrock and not may_get_key(url, None):
            raise InvalidInput(
                "GENESIS_BEDROCK_ENDPOINT_URL must be https for a Bedrock API key, which http would show."
            )
        return self.session.client(service, region_name=self.region, endpoint_url=url, config=config)

    def identity(self) -> str:
        """The ARN of who calls. Raises `Fatal` with what is wrong with the credentials."""
        try:
            return str(self.client("sts").get_caller_identity()["Arn"])
        except Exception as error:
            raise as_provider_error(error) from error

    def find(self, model: str, *, need_profile: bool = False) -> Target:
        """Which id to call for `model` here.

        ARNs and inference profile ids are taken as they are. A bare model id is called as such where that works, else
        through the inference profile of the nearest geography; through a ``global.`` one only if settings allow it.

        Parameters
        ----------
        need_profile : the bare id was refused: look for a profile whatever the model list says.

        Raises
        ------
        Fatal : no such model here, it has been retired, or it needs a global profile that settings don't allow.
        """
        name = model.rsplit("/", 1)[-1]
        if model.startswith("arn:") or GEOGRAPHY.match(model):
            self._check_global(name)
            return Target(model, self._behind(model))
        info = model_info(model)
        if info.lifecycle == "ended":
            when = f" (on {info.ends})" if info.ends else ""
            raise Fatal(f"{model} no longer answers{when}: choose another model.", model=model)
        bedrock = self.client("bedrock")
        try:
            listed = {m["modelId"]: m for m in bedrock.list_foundation_models()["modelSummaries"]}
            found = listed.get(model)
            if found is None:
                near = ", ".join(sorted(m for m in listed if m.split(".")[0] == model.split(".")[0])[:8]) or "none"
                raise Fatal(
                    f"{model} is not offered in {self.region}; models of the same maker are: {near}.", model=model
                )
            lifecycle = found.get("modelLifecycle", {}).get("status")
            if "ON_DEMAND" in found.get("inferenceTypesSupported", []) and not need_profile:
                return Target(model, model, lifecycle)
            pages = bedrock.get_paginator("list_inference_profiles").paginate(typeEquals="SYSTEM_DEFINED")
            profiles = [
                p["inferenceProfileId"]
                for page in pages
                for p in page["inferenceProfileSummaries"]
                if any(base_model_id(m["modelArn"]) == model for m in p["models"])
            ]
        except ProviderError:
            raise
        except Exception as error:
            raise as_provider_error(error, model) from error
        return Target(self._nearest(model, profiles), model, lifecycle)

    def _nearest(self, model: str, profiles: list[str]) -> str:
        """The inference profile to use of several, by geography."""
        starts = sorted((s for s in _GEOGRAPHIES if self.region.startswith(s)), key=len, reverse=True)
        order = list(_GEOGRAPHIES[starts[0]]) if starts else []
        local = [p for p in profiles if not p.startswith("global.")]
        local.sort(key=lambda p: order.index(p.split(".")[0]) if p.split(".")[0] in order else len(order))
        if local:
            return local[0]
        if not profiles:
            raise Fatal(
                f"{model} has no inference profile in {self.region}: choose another model or region.", model=model
            )
        self._check_global(profiles[0])
        return profiles[0]

    def _check_global(self, profile: str) -> None:
        if profile.startswith("global.") and not self.settings.bedrock_allow_global:
            raise Fatal(
                f"{profile} may move your data to any region: set GENESIS_BEDROCK_ALLOW_GLOBAL=true to allow that, "
                "or choose another model.",
                model=profile,
            )

    def _behind(self, model: str) -> str:
        """The foundation model behind an id or ARN; of an application's own profile only the service knows."""
        if ":application-inference-profile/" not in model:
            return base_model_id(model)
        try:
            profile = self.client("bedrock").get_inference_profile(inferenceProfileIdentifier=model)
            return base_model_id(profile["models"][0]["modelArn"])
        except Exception:
            return base_model_id(model)  # calling it may still be allowed; only its price stays unknown


def as_provider_error(error: Exception, model: str | None = None) -> Exception:
    """What an exception of boto3 means to us; anything that is not the service's or the network's comes back as it is."""
    import botocore.exceptions as aws

    if isinstance(error, aws.ClientError):
        return _service_error(error, model)
    if isinstance(error, aws.ParamValidationError):
        return Rejected(f"The request is not well formed: {error}", model=model)
    if isinstance(error, aws.NoCredentialsError | aws.PartialCredentialsError | aws.CredentialRetrievalError):
        return Fatal("No usable AWS credentials: run `aws configure` or `aws sso login`, or set GENESIS_AWS_PROFILE.")
    if isinstance(error, aws.TokenRetrievalError | aws.SSOError):
        return Fatal("The AWS session has expired: sign in again, then run the same again.")
    if isinstance(error, aws.EndpointConnectionError | aws.ConnectTimeoutError):
        return Unreachable(f"Bedrock can't be reached: {error}", model=model)
    # A torn answer makes the parser fail, a lost connection the transport.
    if isinstance(error, aws.HTTPClientError | aws.BotoCoreError) or type(error).__name__ == "ResponseParserError":
        return Transient(f"The connection to Bedrock failed ({type(error).__name__}).", model=model)
    return error


def _service_error(error: Any, model: str | None) -> ProviderError:
    code = error.response.get("Error", {}).get("Code", "")
    said = error.response.get("Error", {}).get("Message", "")
    meta = error.response.get("ResponseMetadata", {})
    details: dict[str, Any] = {
        "code": code,
        "status": meta.get("HTTPStatusCode"),
        "model": model,
        "retry_after_s": _retry_after_s(meta.get("HTTPHeaders", {})),
    }
    words = said.casefold()
    if code in ("ThrottlingException", "TooManyRequestsException"):
        if "per day" in words:
            return QuotaExhausted(
                f"The daily quota of {model} is used up: run the same again tomorrow, or now with divert_to_batch.",
                **details,
            )
        scope: Literal["tokens", "requests", "unknown"] = "tokens" if "tokens" in words else "unknown"
        scope = "requests" if "requests" in words else scope
        return Throttled(said or "Bedrock is throttling.", scope=scope, **details)
    if code in _TRANSIENT or (details["status"] or 0) >= 500:
        return Transient(f"{said or code} ({code})", **details)
    if code == "ServiceQuotaExceededException":
        return QuotaExhausted(f"A quota of the account is used up: {said}", **details)
    if "signature expired" in words or "signature not yet current" in words or code == "RequestTimeTooSkewed":
        return Fatal("The clock of this machine is wrong, so AWS refuses its signatures: set it right.", **details)
    if code.startswith("IncompleteSignature"):  # its message repeats the header, where swapped keys put the secret
        return Fatal(_SENTENCES["IncompleteSignature"], **details)
    if code in _SENTENCES:
        return Fatal(f"{_SENTENCES[code].format(model=model or 'this')} ({said})", **details)
    if "model identifier is invalid" in words or "inference profile" in words or details["status"] == 403:
        return Fatal(f"Bedrock does not accept {model}: {said}", **details)
    return Rejected(said or code, **details)


def _retry_after_s(headers: dict[str, str]) -> float | None:
    """Seconds the service asked us to wait; botocore itself ignores ``Retry-After``."""
    for name, unit in (("x-amz-retry-after", 0.001), ("retry-after", 1.0)):
        try:
            return float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
    return None
