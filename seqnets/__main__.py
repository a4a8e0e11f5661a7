"""``python -m seqnets``."""

from seqnets.cli import main

if __name__ == "__main__":
    main()
