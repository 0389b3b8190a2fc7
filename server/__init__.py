"""The coordinator of a deployment: Flower ServerApp and what runs beside it."""
