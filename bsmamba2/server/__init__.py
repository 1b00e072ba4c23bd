"""The page on this machine on which songs are dropped, and the HTTP interface behind it."""
