"""How the model in the package was made: composed music, the dataset, the training runs, the scores."""
