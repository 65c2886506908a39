"""Comparing the arms: answers through the endpoint and the manifests' figures in, a report out."""
