"""What does the service really allow per minute? Found out with calls that reserve much of the quota and use little.

A service that limits tokens takes ``prompt + max_tokens`` out of its bucket when a call starts, and puts back what was
not used when it ends. So a call with a short answer and a large `max_tokens` holds much quota for as long as it lasts,
and costs next to nothing; a refused call costs nothing at all. First such calls empty the bucket. Then smaller ones,
one after the other, feel for what flows in. Each call is a fact. One that was let in says that the bucket had held its
size: ``held at first + rate × time ≥ taken until then + size``; one that was refused says the opposite. The line between
the two kinds of facts gives both: what the bucket held (the intercept) and the rate (the slope).
"""

from __future__ import annotations

import math
import queue
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from genesis_lab.errors import GenesisError, InvalidInput, Throttled, Transient
from genesis_lab.files import shown, write_atomically
from genesis_lab.health.limit import Limit, fitted
from genesis_lab.providers import parse_spec
from genesis_lab.providers.base import Provider, Request, Usage
from genesis_lab.providers.models import model_info

MAX_CALLS = 400
"""Calls in all, refused ones included."""
MAX_COST_USD = 0.25
MEASURE_S = 6.0
"""How long the inflow is measured after the first refusal."""
THREADS = 256
"""Calls in flight at once."""
FIRST, LARGEST = 128, 4_096
"""Tokens that the first call reserves; doubled up to the model's longest answer, or to the second where that is not known."""
HELD = 1_000
"""A reservation of so many tokens that came back is taken again while the inflow is measured."""
FEW = 5
"""Where fewer requests than this were let in, the inflow is measured up to four times as long."""
PACE_S = 0.02
"""Between the calls that empty the bucket; a tenth of it while they reserve little, and once they reserve all they can."""
ENOUGH = 10
"""Calls that feel for the inflow before the measuring may end early, when the first held reservation comes back."""
QUESTION = "Write the whole numbers from 1 to 150 in figures, separated by single spaces, and nothing else."
"""Long enough to hold its reservation for some seconds, short enough to cost little: about 300 to 450 tokens."""
ANSWER_TOKENS = 450

Scope = Literal["tokens", "requests"]


@dataclass(frozen=True)
class Call:
    """One probing call, once it is over. Times in seconds, sizes in tokens of quota; `settled` is None if it was refused."""

    number: int
    reserved: float
    sent_at: float
    over_at: float
    settled: float | None = None
    scope: Scope = "tokens"
    cost_usd: float | None = None


class Line(Protocol):
    """How calls reach the service. Tests bring one whose seconds cost nothing."""

    def now(self) -> float: ...

    def send(self, max_tokens: int) -> int:
        """Start a call; returns its number."""

    def wait(self, seconds: float) -> Call | None:
        """The next call that is over, or None after so many seconds."""

    def close(self) -> None: ...


@dataclass(frozen=True)
class Diagnosis:
    """What was found. `tokens` and `requests` are None where the other limit came first."""

    model: str
    tokens: Limit | None
    requests: Limit | None
    calls: int
    refused: int
    cost_usd: float | None
    seconds: float

    @property
    def params(self) -> dict[str, int]:
        """The parameters to write into a params file: only what was reached."""
        found = {"tokens_per_minute": self.tokens, "requests_per_minute": self.requests}
        return {name: limit.rounded for name, limit in found.items() if limit and limit.high < math.inf}

    def __str__(self) -> str:
        said = []
        for unit, limit in (("tokens", self.tokens), ("requests", self.requests)):
            if limit and limit.high < math.inf:
                said.append(
                    f"{limit.per_minute:,.0f} {unit} a minute [{limit.low:,.0f}–{limit.high:,.0f}], {limit.how}"
                )
            elif limit:
                said.append(f"no limit of {unit} up to {limit.low:,.0f} a minute")
        cost = "cost not known" if self.cost_usd is None else f"${self.cost_usd:.4f}"
        calls = f"{self.calls} calls, {self.refused} of them refused, {cost}, {self.seconds:.0f} s"
        return f"{self.model} allows {' and '.join(said) or 'nothing that could be measured'} ({calls})."


def expected_cost(provider: Provider, max_calls: int = MAX_CALLS) -> float | None:
    """USD that a diagnosis can cost, if every call is answered at full length; None if the price is not known."""
    one = provider.cost_usd(Usage(60, ANSWER_TOKENS))
    return None if one is None else one * max_calls


def diagnose_quota(
    teacher: str,
    *,
    max_calls: int = MAX_CALLS,
    max_cost_usd: float = MAX_COST_USD,
    measure_s: float = MEASURE_S,
) -> Diagnosis:
    """Measure a teacher's quota, of Amazon Bedrock above all; nobody else should use it meanwhile.

    Parameters
    ----------
    teacher : ``bedrock:amazon.nova-lite-v1:0``, for example.
    max_calls, max_cost_usd : no more than so many calls are made, and none once so much is spent or may be spent by
        those in flight; where the price is not known only the first holds.
    measure_s : seconds of measuring after the first refusal; longer is more exact.

    Raises
    ------
    InvalidInput : `teacher` names no model, or none that has a quota.
    ProviderError : a call fails for another reason than the rate; one that is lost on the way is only left out.
    """
    spec = parse_spec(teacher)
    if spec.provider not in ("bedrock", "openai"):
        raise InvalidInput(f"{teacher} runs on this machine: it has no quota to measure.")
    provider = spec.open()
    try:
        if spec.provider == "bedrock":
            from genesis_lab.providers.bedrock import BedrockProvider

            assert isinstance(provider, BedrockProvider)
            provider = BedrockProvider(provider.model, settings=provider.account.settings, concurrency=THREADS)
        info = model_info(provider.model)
        try:
            first = provider.complete(_request(16))  # short, so that it leaves the bucket full
        except Throttled:
            raise GenesisError("The quota is in use or used up: run this again when nothing else runs.") from None
        prompt = first.usage.prompt_tokens if first.usage else 0
        line = ProviderLine(provider, prompt, info.burndown or 1.0)
        try:
            probe = Probe(line, info.max_output_tokens or LARGEST, max_calls - 1)
            one = provider.cost_usd(Usage(prompt, ANSWER_TOKENS))
            if one:
                probe.max_in_money = int(max_cost_usd / one)
            started = line.now()
            probe.run(measure_s)
            return probe.diagnosis(spec.label, first.cost_usd, line.now() - started)
        finally:
            line.close()
    finally:
        provider.close()


def write_params(path: Path, diagnosis: Diagnosis) -> None:
    """Put the measured limits into a params file; everything else in it stays as it is.

    Raises
    ------
    InvalidInput : there is no such file, or nothing was measured.
    """
    if not diagnosis.params:
        raise InvalidInput("No limit was reached, so there is nothing to write.")
    if not path.is_file():
        raise InvalidInput(f"There is no params file {shown(path)}.")
    text = path.read_text(encoding="utf-8")
    for name, value in diagnosis.params.items():
        line = f"{name}: {value} # measured by genesis quota"
        text, found = re.subn(rf"^{name}:.*$", line, text, flags=re.M)
        if not found:
            before, stages, after = text.partition("\nstages:")
            text = f"{before}\n{line}{stages}{after}" if stages else f"{text.rstrip()}\n{line}\n"
    write_atomically(path, text)


class Probe:
    """Empties the bucket, then measures what flows in.

    Parameters
    ----------
    largest : most tokens that an answer may be given.
    max_calls : calls in all.
    """

    def __init__(self, line: Line, largest: int, max_calls: int) -> None:
        self._line, self._largest, self._max_calls = line, largest, max_calls
        self.max_in_money = max_calls
        """Calls that the budget pays for."""
        self._flying: dict[int, int] = {}
        self._over: dict[int, Call] = {}
        self._returned: list[int] = []
        self._started = line.now()

    @property
    def refusals(self) -> list[Call]:
        return [call for call in self._over.values() if call.settled is None]

    def run(self, measure_s: float) -> None:
        size = min(FIRST, self._largest)
        while not self.refusals and self._send(size):
            size = min(2 * size, self._largest)
            self._wait(PACE_S if HELD < size < self._largest else PACE_S / 10)
        if self.refusals:
            self._measure(self._line.now() + measure_s)
        while self._flying and self._wait(60.0):
            pass

    def _measure(self, until: float) -> None:
        """Hold the bucket empty, and feel with ever smaller or larger calls how much has flown in."""
        size, smallest = min(call.reserved for call in self.refusals) / 2, 16.0
        grace_s = min(1.0, max(0.1, 2.5 * self._round_trip()))
        felt, by_requests = 0, self.refusals[0].scope == "requests"
        longest = until + 3 * (until - self._line.now()) if by_requests else until
        while self._line.now() < until or (self._let_in() < FEW and self._line.now() < longest):
            if felt >= ENOUGH and self._returned and not by_requests:
                break  # what was held comes back: from here on it is less clear what was taken when
            while self._returned and not by_requests:  # take it again
                if self._send(self._returned.pop()) is None:
                    return
            number = self._send(int(smallest if by_requests else size))
            if number is None:
                return
            refused = self._refused_within(number, grace_s)
            if refused and (by_requests or size <= smallest):
                self._pause(grace_s)
            felt += 1
            size = max(size / 2, smallest) if refused else min(1.5 * size, self._largest)

    def _let_in(self) -> int:
        """Calls that were not refused, as far as is known by now."""
        return len(self._flying) + len(self._over) - len(self.refusals)

    def _refused_within(self, number: int, seconds: float) -> bool:
        until = self._line.now() + seconds
        while number not in self._over and (left := until - self._line.now()) > 0:
            self._wait(left)
        return number in self._over and self._over[number].settled is None

    def _pause(self, seconds: float) -> None:
        until = self._line.now() + seconds
        while (left := until - self._line.now()) > 0:
            self._wait(left)

    def _send(self, max_tokens: int) -> int | None:
        """The call's number; None if no more calls may be made, or all threads are busy for good."""
        paid = len(self._flying) + sum(call.settled is not None for call in self._over.values())
        if len(self._flying) + len(self._over) >= self._max_calls or paid >= self.max_in_money:
            return None
        while len(self._flying) >= THREADS:
            if self._wait(60.0) is None:
                return None
        number = self._line.send(max_tokens)
        self._flying[number] = max_tokens
        return number

    def _wait(self, seconds: float) -> Call | None:
        call = self._line.wait(seconds)
        if call:
            size = self._flying.pop(call.number)
            self._over[call.number] = call
            if call.settled is not None and size >= HELD:
                self._returned.append(size)
        return call

    def _round_trip(self) -> float:
        return float(np.median([call.over_at - call.sent_at for call in self.refusals]))

    def diagnosis(self, model: str, first_cost_usd: float | None, seconds: float) -> Diagnosis:
        """What the calls say, the first ordinary one of `first_cost_usd` included."""
        answered = [call for call in self._over.values() if call.settled is not None]
        costs = [first_cost_usd, *(call.cost_usd for call in answered)]
        known = [cost for cost in costs if cost is not None]
        limits = {scope: self._limit(scope, answered) for scope in ("tokens", "requests")}
        return Diagnosis(
            model=model,
            tokens=limits["tokens"],
            requests=limits["requests"],
            calls=1 + len(self._over),
            refused=len(self.refusals),
            cost_usd=sum(known) if len(known) == len(costs) else None,
            seconds=seconds,
        )

    def _limit(self, scope: str, answered: Sequence[Call]) -> Limit | None:
        if not any(call.scope == scope for call in self.refusals):
            most = max((self._taken(call.sent_at + 1e-9, scope, answered, 0.0) for call in answered), default=0.0)
            return Limit(most, most, math.inf, "not reached") if scope == "tokens" and not self.refusals else None
        half_s = self._round_trip() / 2
        # Calls that were under way when the first was refused may have arrived in any order.
        known_at = min(call.over_at for call in self.refusals)
        clear = [call for call in self.refusals if call.scope == scope and call.sent_at >= known_at]
        facts = []
        for call in (*answered, *(clear or self.refusals)):
            at, size = call.sent_at + half_s, call.reserved if scope == "tokens" else 1.0
            # What was put back at about that moment may have come before or after.
            unsure = [c for c in answered if abs(c.over_at - half_s - at) < 2 * half_s and abs(_given_back(c)) > size]
            if scope == "requests" or not unsure:
                taken = self._taken(at, scope, answered, half_s)
                facts.append((at - self._started, taken, size, call.settled is None))
        return fitted(facts)

    def _taken(self, at: float, scope: str, answered: Sequence[Call], half_s: float) -> float:
        """Tokens taken out of the bucket before a moment, less those put back; or requests made."""
        begun = [call for call in answered if call.sent_at + half_s < at]
        if scope == "requests":
            return float(len(begun))
        return sum(call.reserved for call in begun) - sum(_given_back(c) for c in begun if c.over_at - half_s < at)


def _given_back(call: Call) -> float:
    return call.reserved - (call.settled or 0.0)


class ProviderLine:
    """The real line: each call in a thread of its own."""

    def __init__(self, provider: Provider, prompt_tokens: int, burndown: float) -> None:
        self._provider, self._prompt, self._burndown = provider, prompt_tokens, burndown
        self._pool = ThreadPoolExecutor(THREADS)
        self._over: queue.SimpleQueue[Call | Exception] = queue.SimpleQueue()
        self._sent = 0
        self.now: Callable[[], float] = time.monotonic

    def send(self, max_tokens: int) -> int:
        self._sent += 1
        self._pool.submit(self._call, self._sent, max_tokens)
        return self._sent

    def wait(self, seconds: float) -> Call | None:
        try:
            over = self._over.get(timeout=max(seconds, 0.0))
        except queue.Empty:
            return None
        if isinstance(over, Exception):
            raise over
        return over

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _call(self, number: int, max_tokens: int) -> None:
        sent_at, reserved = self.now(), float(self._prompt + max_tokens)
        try:
            answer = self._provider.complete(_request(max_tokens))
        except Throttled as error:
            scope: Scope = "requests" if error.scope == "requests" else "tokens"
            self._over.put(Call(number, reserved, sent_at, self.now(), scope=scope))
        except Transient:  # lost on the way: whether it held anything is not known, it counts as nothing
            self._over.put(Call(number, 0.0, sent_at, self.now(), settled=0.0))
        except Exception as error:
            self._over.put(error)
        else:
            used = answer.usage
            settled = used.prompt_tokens + used.completion_tokens * self._burndown if used else reserved
            self._over.put(Call(number, reserved, sent_at, self.now(), settled, "tokens", answer.cost_usd))


def _request(max_tokens: int) -> Request:
    return Request(key="", messages=(("user", QUESTION),), max_tokens=max_tokens)
