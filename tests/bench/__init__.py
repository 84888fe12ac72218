"""The benchmark: ``python -m tests.bench``, or ``make bench`` for the table and plot in docs.

``rounds`` owns order, pairs and statistics, ``render`` what becomes of them on paper; both are
pure. ``wires`` builds the contenders, ``bare`` loads the BPF programs that only the bench needs.
Every kind of measure has a module of its own, which returns :class:`rounds.Series`.
"""
