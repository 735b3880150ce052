"""The shipped test kit: a scripted model, a scripted provider, and what every provider owes."""
