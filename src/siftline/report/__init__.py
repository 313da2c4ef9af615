"""The report of a publication: findings in words and pictures."""
