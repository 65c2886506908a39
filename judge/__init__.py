"""A language model as judge of answers: asked in both orders, over HTTP, and for the same once."""
