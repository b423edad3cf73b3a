"""Reading Compose files into `AppSpec`: `project.load` is the way in."""
