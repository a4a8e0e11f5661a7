"""Makes the programs of this folder importable, and gives what most tests begin with."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
