"""Deployments, automations and runs on a Prefect server."""
