"""Built-in data, available without a download through `seqnets.data`."""
