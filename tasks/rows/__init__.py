"""Rows that a user gives: read from the formats and told apart by the columns that people have.

They lie among the tasks, whose data sets are files too: the lowest room that knows of data sets. `restore` takes rows
in memory and knows nothing of files; the harness and the judges' checks are above.

    formats         a file's bytes -> records, with the line of each
    conversations   turns of a chat -> a prompt, what stands before it, and its answer
    shapes          columns -> which of them is the prompt, the response, ...
    reader          all of it, for a file or a data set on the hub
"""
