"""What should run where: pure plans from the store, and the loop that commits them."""
