"""Export: an adapter in; merged and quantised checkpoints out, each measured against what it came from."""
