"""Backups, and the ways out of a disaster: restore, recover."""
