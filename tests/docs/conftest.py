"""Makes what the tests of the documentation share importable."""

import sys
from pathlib import Path

for folder in (Path(__file__).parent, Path(__file__).parents[2] / "docs"):
    sys.path.insert(0, str(folder))
