"""Training: a recipe and an arm in, a LoRA adapter out."""
