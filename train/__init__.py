"""Training: a recipe and an arm in; a LoRA adapter, or a whole model, out."""
