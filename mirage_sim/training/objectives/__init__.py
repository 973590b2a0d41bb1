"""Training objectives: one class per stage. All fulfil :class:`~mirage_sim.training.loop.Objective`."""
