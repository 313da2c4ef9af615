"""CSV files: their form, the types of their columns, and their conversion to Parquet."""
