"""What watches a training: its health, what it looks and sounds like (pictures), and its progress."""
