"""The commands, a file each family; imported when used."""
