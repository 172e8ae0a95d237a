"""Put this folder on the module path, so that the tests find the modules beside them."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
