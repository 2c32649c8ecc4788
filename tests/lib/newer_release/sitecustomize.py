"""On PYTHONPATH it makes any cronflowd newer by one form of records: only it knows the option `title=`.

All processes that a daemon starts inherit it, as they would be of the newer release.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))

from cronflowd.engine import facts

facts.FACTS_VERSION += 1
facts.SINCE["title="] = facts.FACTS_VERSION
