"""Role ``vision``: a product owner who writes a product vision and reviews it against the requirements."""
