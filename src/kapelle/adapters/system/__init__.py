"""What several adapter families need of the machine; the one folder that any adapter may import."""
