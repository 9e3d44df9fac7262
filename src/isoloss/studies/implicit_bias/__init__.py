"""What the loss hides: flatness and transfer among models of equal loss."""
