"""Jobs: a configuration and a run directory in, a trained model and its figures out."""
