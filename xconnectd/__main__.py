"""``python -m xconnectd``."""

import sys

from xconnectd.cli import main

sys.exit(main())
