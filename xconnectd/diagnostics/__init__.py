"""The commands doctor and test: what is looked at, and what it means."""
