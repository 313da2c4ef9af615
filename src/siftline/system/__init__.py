"""The machine and its processes: size, signals, imports, addresses, and the Prefect API without Prefect."""
