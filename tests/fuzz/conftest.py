"""Makes `readers` importable for the tests as it is for the scripts beside them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
