"""Built-in data, so that nothing needs downloading; `seqnets.data` exports it."""
