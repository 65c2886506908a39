"""An adapter into its base."""
