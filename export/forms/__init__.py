"""What a model is made smaller by: GPTQ, NF4, GGUF."""
