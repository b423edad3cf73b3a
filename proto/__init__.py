"""Objects, services and their generated stubs; imports nothing of Fairway's."""
