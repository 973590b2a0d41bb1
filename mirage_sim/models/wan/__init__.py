"""The real backbone, Wan2.2-TI2V-5B: its networks, their weights, and how they are sampled."""
