"""A method, a judge and a task for safebasin. Name the folder `tasks` under `tasks.include` of a config."""
