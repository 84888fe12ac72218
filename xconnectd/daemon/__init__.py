"""The long-running process: its loop, its metrics, and what it tells systemd."""
