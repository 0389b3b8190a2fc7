"""The files a person writes: a study, and a site. Read strictly, explained with file, line and key."""
