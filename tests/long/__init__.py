"""Tests on the real kernel that take more than some seconds: `sudo make test-long`."""
