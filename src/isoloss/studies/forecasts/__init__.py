"""What a bigger run will lose and score, and how well that would have held."""
