"""The reference monitor of one data holder: it alone touches rows, keys, the budget and the consent store."""
