"""The passes that every target and every precision share."""
