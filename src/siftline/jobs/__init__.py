"""Jobs: receipts, status, intervals, published results, and their history."""
