"""Where the process begins: ``python -m xconnectd``, and the command ``xconnectd``.

An interrupt that Python's handler raises while a module is imported may be lost (importlib's own
callbacks cannot pass it on). So there is no handler meanwhile: it ends the process as SIGTERM does.
To a daemon SIGHUP means to read its file: one that comes early waits until there is a daemon.
"""

import signal
import sys

if sys.argv[1:2] == ["run"]:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
_handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
from xconnectd.cli.main import main  # noqa: E402

signal.signal(signal.SIGINT, _handler)

if __name__ == "__main__":
    sys.exit(main())
