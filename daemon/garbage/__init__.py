"""What a host does not need any more, and what becomes of it when it is old or a file system fills."""
