"""Notices: messages, their delivery, and the report of a result."""
