"""Files of models: where tensors lie, written tensor by tensor, and what lies beside them."""
