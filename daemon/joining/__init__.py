"""How a host enters a cluster: both ends of the join port."""
