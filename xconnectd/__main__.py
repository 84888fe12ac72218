"""``python -m xconnectd``."""

import signal
import sys

# What Python's own handler raises is lost where an import is in a callback of importlib's.
_own = signal.signal(signal.SIGINT, signal.SIG_DFL)
from xconnectd.cli import main  # noqa: E402

signal.signal(signal.SIGINT, _own)
sys.exit(main())
