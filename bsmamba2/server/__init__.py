"""The page on this machine to drop songs on, and the HTTP interface behind it."""
