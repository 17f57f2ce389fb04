"""Published data sets, from the files that their authors give out to the two-table form."""
