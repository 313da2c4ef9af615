"""Configuration: its fields, reading it from files, and what is wrong with it."""
