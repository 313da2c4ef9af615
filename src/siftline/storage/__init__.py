"""Storage: durable files, sealed records, locks, leases, and Parquet files."""
