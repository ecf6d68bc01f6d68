"""What several generators share: point embedding, attention blocks, the training loop."""
