"""A site of a deployment: Flower ClientApp and what runs beside it."""
