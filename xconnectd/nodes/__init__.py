"""Where nodes are: network namespaces by name, by process, by container."""
