"""The embedded data set."""
