"""Search over ranges in a recipe: trials in processes of their own, kept in SQLite, pruned, plotted."""
