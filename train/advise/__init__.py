"""What a run's curves say is wrong, why, and what to change."""
