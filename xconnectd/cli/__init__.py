"""The command line: arguments in, one call, a result printed, an exit code out."""
