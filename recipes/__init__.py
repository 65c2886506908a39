"""Recipes: one YAML, one experiment. ``schema`` says which keys there are, ``load`` reads them."""
