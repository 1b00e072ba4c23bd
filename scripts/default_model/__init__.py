"""How the packaged model was made: composed music, the dataset, the training runs, the scores."""
