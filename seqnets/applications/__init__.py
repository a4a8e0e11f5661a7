"""Applications: models for a kind of data, usable as commands, estimators, and building blocks."""
