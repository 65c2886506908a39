"""How far one model is from another, wherever they are."""
