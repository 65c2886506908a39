"""Preference data: reading and checking pairs, the sample set and its chosen style."""
