"""The modules beside the test are found by it and by its worker alike."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
