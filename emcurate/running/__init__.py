"""Running a stage: jobs over many inputs, the report of a run, and who owns which file of a directory."""
