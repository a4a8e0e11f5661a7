"""``python -m seqnets``."""

from seqnets.launch import main

if __name__ == "__main__":
    main()
