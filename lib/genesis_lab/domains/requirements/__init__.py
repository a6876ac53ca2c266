"""Role ``requirements``: a business analyst who turns a product concept into requirements."""
