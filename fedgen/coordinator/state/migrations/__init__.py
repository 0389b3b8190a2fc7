"""Steps of the state's schema, oldest first."""
