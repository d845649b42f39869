"""Reference chips: cut from marked examples, kept in reference sets, described by a network."""
