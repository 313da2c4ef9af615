"""Stages of a job, from the plan to the publication; one never imports the next."""
