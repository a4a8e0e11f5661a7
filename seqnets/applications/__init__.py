"""Applications: each models one kind of data, as a library, as an estimator, and as commands."""
