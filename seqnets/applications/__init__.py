"""Applications: each a kind of model for a kind of data, with the same three doors."""
