"""Resources: the size of the machine, the queue for a pool, and rules that adapt a running job."""
