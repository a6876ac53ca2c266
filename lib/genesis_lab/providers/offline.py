"""Provider ``offline``: answers with the text its request brings along. No network, no cost, always the same."""

from __future__ import annotations

from genesis_lab.errors import Rejected
from genesis_lab.providers.base import Completion, Provider, Request, Usage


class OfflineProvider(Provider):
    """The domain's own grammar, seen as a provider; its answers go through the same checks as any model's."""

    name = "offline"
    model = "grammar"
    free = True

    def complete(self, request: Request) -> Completion:
        if request.offline_text is None:
            raise Rejected("Provider offline has no text for this request: it only answers for domains with a grammar.")
        return Completion(text=request.offline_text, model=self.model, cost_usd=0.0)

    def cost_usd(self, usage: Usage) -> float:
        return 0.0
