"""How a plan becomes records: who writes them, as fast as quotas allow, and nothing paid for twice."""

from genesis_lab.generation.generate import GenerationConfig, config_for, generate, open_or_generate

__all__ = ["GenerationConfig", "config_for", "generate", "open_or_generate"]
