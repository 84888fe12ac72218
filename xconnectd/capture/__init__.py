"""The command capture: frames of a link, into a pcapng file."""
