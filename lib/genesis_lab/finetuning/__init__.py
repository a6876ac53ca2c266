"""Students: from teacher data to a small model whose gain is proven."""
