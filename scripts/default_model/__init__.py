"""How the model in the package was made: music of our own, the data laid out, the trainings, the scores."""
