"""Data: reference simulators, recorded walks, videos and photographs, and the data sets made of them."""
