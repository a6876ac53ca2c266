"""What real users said: conversations read from a bot's own store, and what people decide about them."""
