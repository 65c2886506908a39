"""Serving: checkpoints in, one verified OpenAI-compatible endpoint out."""
