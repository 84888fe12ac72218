"""The status document: collected from kernel and daemon, shown as JSON, text, table and graph."""
