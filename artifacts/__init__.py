"""Artifacts: the directories that stages exchange, their manifests, base models and probes."""
