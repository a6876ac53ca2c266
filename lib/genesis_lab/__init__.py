"""Genesis Lab: from no data to a small model that provably works."""

__version__ = "0.1.0"
