"""How good are the images that a model draws? One file a model, and the measures they share."""
